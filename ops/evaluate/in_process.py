"""Exported models, run in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.ensemble.cores import cores
from landseer.ensemble.pictures.pictures import Prepared
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.ops.backend.inprocess import full_graph, read_profile
from landseer.ops.backend.lattdba_graph import GraphAttention
from landseer.ops.backend.lattqe_graph import Lattqe
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.arrays import BOXES, DESCRIPTOR, LOCALS, Arrays, arrays, kept_as, outputs
from landseer.ops.evaluate.cache import ArrayReader, vector_cache
from landseer.ops.evaluate.cached_arrays import CachedPictureArrays
from landseer.ops.evaluate.codebooks import CodebooksBySize, CodebookSource
from landseer.ops.evaluate.database import Begin, Database, Databases
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.describe import Describe, Described, describe_by
from landseer.ops.evaluate.keypoint_arrays import KEYPOINTS, OF_QUERY, PATCHES
from landseer.ops.evaluate.methods import Answer, Method, answers
from landseer.ops.evaluate.needs import WORDY, needed
from landseer.ops.evaluate.regions import Boxes, crops, flat
from landseer.ops.evaluate.space import Space
from landseer.ops.evaluate.synthetic import synthetic
from landseer.ops.evaluate.system import About, Rank, Searched
from landseer.ops.progress import bars

Floats = NDArray[np.float32]


class InProcessSystem:
    """The graphs of a repository, run by the code that serves them."""

    def __init__(
        self,
        repository: Path,
        *,
        cache: Path,
        seed: int,
        label: str | None = None,
        words: CodebookSource | None = None,
        boxes: Boxes | None = None,
    ) -> None:
        """Read the manifest. OpsError.

        cache: the file that keeps descriptions; seed: for synthetic distractors; words: where the codebook comes from;
        boxes: which boxes become regions.
        """
        self.repository, self._cache, self._seed = repository, cache, seed
        self._words, self._boxes = words or CodebookSource(), boxes or Boxes()
        self.profile = read_profile(repository)
        self._vectors: dict[Shot, Floats] = {}
        self._regions: dict[Path, list[Shot]] = {}
        self._arrays = ArrayReader(cache, self.profile)
        self._codebooks = CodebooksBySize(self._words, self.profile, home=cache.parent / "codebooks")
        name = f"{label or self.profile.backbone} {self.profile.descriptor}"
        self.about = About(
            name=name,
            long_side=self.profile.long_side,
            untrained=self.profile.untrained,
            details={"profile": json.loads(self.profile.to_json())},
        )

    def prepare(
        self, dataset: Dataset, methods: Sequence[Method], console: Console, *, more: Collection[str] = ()
    ) -> dict[Path, str]:
        """Compute the arrays that the methods need and the cache lacks: in one pass, with a second one for regions.

        more: names of further arrays (see `arrays.py`).
        """
        names = {DESCRIPTOR, *needed(methods), *more}
        if not self.profile.sizes.patches:
            names.discard(PATCHES)
        if LOCALS in names and not self.profile.locals_sha256:
            raise OpsError(f"{self.repository} has no local descriptors; run: python export/all.py")
        sample = self._words.shots(dataset) if any(method.name in WORDY for method in methods) else []
        found = self._describe(dataset.pictures(), names, console)
        self._vectors = found.vectors
        if KEYPOINTS in names:
            readable = dataset.without(found.unreadable)
            self._describe([query.shot for query in readable.queries], OF_QUERY, console, what="words of queries")
        if BOXES in names:
            self._cut([path for path in dataset.references if path not in found.unreadable], console)
        if sample:
            self._learn(sample, [method.words for method in methods if method.name in WORDY], console)
        return found.unreadable

    def _cut(self, paths: Sequence[Path], console: Console) -> None:
        """Describe the regions of the pictures."""
        boxes = self._arrays.read(BOXES, [Shot(path=path) for path in paths])
        self._regions = crops(paths, boxes, self._boxes)
        self._describe(list(flat(self._regions)), {LOCALS}, console, what="regions")

    def _learn(self, sample: Sequence[Shot], counts: Sequence[int], console: Console) -> None:
        """Learn codebooks of these numbers of words from photographs."""
        known = self._describe(sample, {LOCALS}, console, what="photographs to learn words from").keys
        key = hashlib.sha256(b"".join(known.values())).digest()
        self._codebooks.learn(counts, lambda: self._arrays.read(LOCALS, list(known)), key, console)

    def _describe(
        self, shots: Sequence[Shot], names: Collection[str], console: Console, *, what: str = "pictures"
    ) -> Described:
        """Compute the arrays of these names that the cache lacks."""
        wanted = sorted(names)
        kept = {name: kept_as(name, self.profile) for name in wanted}

        def load() -> Describe:
            with console.status("compiling the models"):
                graph = full_graph(self.repository, self.profile, outputs(wanted), threads=cores())

            def describe(prepared: Prepared) -> Arrays:
                found = arrays(wanted, graph.describe(prepared.pixels[None]), prepared)
                return {kept[name]: value for name, value in found.items()}

            return describe

        with vector_cache(self._cache, self.profile.fingerprint) as cache, bars(console) as progress:
            task = progress.add_task(f"describing {what}: {self.about.name}", total=len(shots))
            found = describe_by(
                tuple(kept.values()), shots, load, self.profile, cache, progress=lambda: progress.advance(task)
            )
        self._arrays.keys.update(found.keys)
        return found

    def ranker(self, dataset: Dataset) -> Rank:
        """Return a function that ranks by the descriptors; synthetic distractors follow the references."""
        space = self.space(dataset)
        databases = Databases(space.database.vectors, space.own, attention=self._attention, threads=cores())

        def rank(method: Method, begin: Begin) -> Searched:
            searched = replace(space, database=databases.of(method.database, begin))
            progress, found = begin("ranking", len(space.queries)), list[Answer]()
            for answer in answers(method, searched):
                found.append(answer)
                progress()
            return Searched.of(found)

        return rank

    def space(self, dataset: Dataset) -> Space:
        """Return the vectors of a data set whose pictures were prepared."""
        side = CachedPictureArrays(
            self.repository, self.profile, self._arrays, dataset, regions=self._regions, codebooks=self._codebooks
        )
        return Space(
            queries=np.stack([self._vectors[query.shot] for query in dataset.queries]),
            database=Database(vectors=self._references(dataset)),
            own=dataset.own_rows(),
            lattqe=Lattqe(self.repository, self.profile),
            trained=LATTQE not in self.profile.untrained,
            arrays=side,
        )

    def _attention(self) -> GraphAttention:
        return GraphAttention(self.repository, self.profile, threads=cores())

    def _references(self, dataset: Dataset) -> Floats:
        real = np.stack([self._vectors[Shot(path=path)] for path in dataset.references])
        if not dataset.synthetic:
            return real
        if len(real) < 2:
            raise OpsError(f"--distractors {dataset.synthetic} needs at least two references; {dataset.name} has one")
        return np.concatenate([real, synthetic(real, dataset.synthetic, seed=self._seed)])
