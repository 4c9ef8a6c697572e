"""Exported models in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.ensemble.evaluation import Ids
from landseer.ops.curate.showing import bars
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.database import Begin, Databases
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.describe import describe_all
from landseer.ops.evaluate.lattqe import Lattqe
from landseer.ops.evaluate.methods import Method, rankings
from landseer.ops.evaluate.synthetic import synthetic
from landseer.ops.evaluate.system import About, Rank
from landseer.ops.inprocess import Graph, backbone_settings, cores, read_profile
from landseer.ops.lattdba import GraphAttention
from landseer.ops.processes import OpsError

Floats = NDArray[np.float32]


class LocalSystem:
    """The graphs of a repository, by the very code that serves them."""

    def __init__(self, repository: Path, *, cache: Path, seed: int, label: str | None = None) -> None:
        """Read the manifest. `cache` keeps descriptors, `seed` draws synthetic distractors. OpsError."""
        self._repository, self._cache, self._seed = repository, cache, seed
        self.profile = read_profile(repository)
        self._vectors: dict[Shot, Floats] = {}
        name = f"{label or self.profile.backbone} {self.profile.descriptor}"
        self.about = About(
            name=name,
            long_side=self.profile.long_side,
            untrained=self.profile.untrained,
            details={"profile": json.loads(self.profile.to_json())},
        )

    def prepare(self, dataset: Dataset, console: Console) -> dict[Path, str]:
        """Describe what the cache has not."""
        shots, profile = dataset.pictures(), self.profile
        with console.status("compiling the backbone"):
            graph = Graph(backbone_settings(self._repository, profile.version, threads=cores()))
        with vector_cache(self._cache, profile.fingerprint) as cache, bars(console) as progress:
            task = progress.add_task(f"describing: {self.about.name}", total=len(shots))
            found = describe_all(shots, graph, profile, cache, progress=lambda: progress.advance(task))
        self._vectors = found.vectors
        return found.unreadable

    def ranker(self, dataset: Dataset) -> Rank:
        """Return what ranks by the descriptors, synthetic distractors behind the references."""
        queries = np.stack([self._vectors[query.shot] for query in dataset.queries])
        references = self._references(dataset)
        own, lattqe = dataset.own_rows(), Lattqe(self._repository, self.profile)
        databases = Databases(references, own, attention=self._attention, threads=cores())

        def rank(method: Method, begin: Begin) -> list[Ids]:
            database, found = databases.of(method.database, begin), list[Ids]()
            progress = begin("ranking", len(queries))
            for order in rankings(method, queries, database, own, lattqe=lattqe):
                found.append(order)
                progress()
            return found

        return rank

    def _attention(self) -> GraphAttention:
        return GraphAttention(self._repository, self.profile, threads=cores())

    def _references(self, dataset: Dataset) -> Floats:
        real = np.stack([self._vectors[Shot(path=path)] for path in dataset.references])
        if not dataset.synthetic:
            return real
        if len(real) < 2:
            raise OpsError(f"--distractors {dataset.synthetic} needs two references to be like; {dataset.name} has one")
        return np.concatenate([real, synthetic(real, dataset.synthetic, seed=self._seed)])
