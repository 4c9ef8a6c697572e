"""A data set with classes as the vectors of one backbone and its head, at one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from landseer.ensemble.evaluation import Ids, Truth
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import Wanted, find_parts, trunk_sha256
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import trunk_runner
from landseer.ops.evaluate.head_variants import variants
from landseer.ops.evaluate.head_vectors import Vectors, describe_by_heads
from landseer.ops.progress import bars, warn


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledVectors:
    """A data set as vectors; some of its pictures are searched for among the others."""

    vectors: Vectors
    """[N, D], unit norm."""
    labels: Ids
    """The class of each picture, [N], numbered in the order of their names."""
    queries: Ids
    """The rows that are searched for, [Q]."""
    how: str = ""
    """Backbone and descriptor, for people."""

    def rows(self, rows: Ids) -> LabelledVectors:
        """Return the data set of these rows alone, each of them a query."""
        return replace(self, vectors=self.vectors[rows], labels=self.labels[rows], queries=np.arange(len(rows)))

    def sampled(self, count: int, seed: int) -> LabelledVectors:
        """Return it with at most `count` of the queries, drawn with the seed."""
        draw = np.random.default_rng(seed)
        chosen = draw.choice(self.queries, min(count, len(self.queries)), replace=False)
        return replace(self, queries=np.sort(chosen))

    def classes(self) -> Ids:
        """Return the class of each query, [Q]."""
        return self.labels[self.queries]

    def truths(self) -> list[Truth]:
        """Return what each query should find: the other rows of its class."""
        same = (np.flatnonzero(self.labels == self.labels[row]) for row in self.queries)
        return [Truth(easy=rows[rows != row]) for rows, row in zip(same, self.queries, strict=True)]


def describe_labelled(
    spec: str, backbone: str, *, weights: Path | None, parts: Path | None, folder: Path, console: Console
) -> LabelledVectors:
    """Describe the photographs of a data set by the trained parts given, by default those that come with Landseer.

    folder: keeps the vectors for the next time. Raises DatasetError, WeightsError or OpsError.
    """
    whole = readable(read(spec))
    warn(whole.skipped, console)
    found, loaded = whole.photographs, BACKBONES[backbone].load(weights, "auto")
    trained = find_parts(loaded, Wanted(backbone=backbone, weights=weights, parts=parts))
    chosen = list(variants(loaded.trunk.channels, [trained] if trained else []))
    variant = chosen[-1] if trained else chosen[0]
    with bars(console) as progress:
        task = progress.add_task("describing", total=len(found))
        [vectors] = describe_by_heads(
            [one.path for one in found],
            [variant],
            run=trunk_runner(loaded.trunk, precision_of(backbone)),
            trunk=trunk_sha256(loaded),
            profile=Profile(backbone=backbone, weights_sha256="", sizes=Sizes(channels=loaded.trunk.channels)),
            folder=folder,
            progress=lambda: progress.advance(task),
        )
    _, labels = np.unique([one.label for one in found], return_inverse=True)
    how = f"{backbone}, {variant.name}"
    return LabelledVectors(vectors=vectors, labels=labels.astype(np.int64), queries=np.arange(len(vectors)), how=how)
