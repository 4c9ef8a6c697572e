"""A data set with classes as the vectors of one backbone and its head, at one scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from landseer.ensemble.evaluation import Ids, Truth
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import Wanted, find_parts, trunk_sha256
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.models.trunks import BACKBONES, Loaded
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.views import Pixels
from landseer.ops.evaluate.head_variants import Variant, as_served, variants
from landseer.ops.evaluate.head_vectors import MAPS, Run, Vectors, describe_by_heads, level
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Describer:
    """A backbone and its head, at the scales of a server."""

    variant: Variant
    load: Callable[[], Run]
    """Prepares the trunk."""
    key: str
    """Identifies what descriptors depend on."""
    how: str
    """Backbone and descriptor, for people."""

    @classmethod
    def of(cls, backbone: str, weights: Path | None) -> Describer:
        """Load them, with the trained parts that come with Landseer. WeightsError."""
        loaded, variant = _loaded(backbone, weights, None)
        made = as_served(variant)
        key = f"{trunk_sha256(loaded)} {made.fingerprint}"
        load = partial(maps_runner, loaded.trunk, precision_of(backbone), MAPS)
        return cls(variant=made, load=load, key=key, how=f"{backbone}, {variant.name}")

    @cached_property
    def run(self) -> Run:
        """The trunk; preparing it takes seconds, for nothing if all pictures are described already."""
        return self.load()

    def __call__(self, pixels: Pixels) -> Vectors:
        """Return the descriptor [D], of unit norm, of a picture [H, W, 3], sides multiples of 32."""
        levels = {scale: level(pixels[None], scale, self.run) for scale in self.variant.scales}
        with torch.inference_mode():
            return np.array(self.variant.describe_pyramid(levels).numpy(), np.float32)


def _loaded(backbone: str, weights: Path | None, parts: Path | None) -> tuple[Loaded, Variant]:
    """Return the trunk, and the head with the trained parts given, by default those that come with Landseer."""
    loaded = BACKBONES[backbone].load(weights, "auto")
    trained = find_parts(loaded, Wanted(backbone=backbone, weights=weights, parts=parts))
    chosen = list(variants(loaded.trunk.channels, [trained] if trained else []))
    return loaded, chosen[-1] if trained else chosen[0]


def describe_labelled(
    spec: str, backbone: str, *, weights: Path | None, parts: Path | None, folder: Path, console: Console
) -> LabelledVectors:
    """Describe the photographs of a data set by the trained parts given, by default those that come with Landseer.

    folder: keeps the vectors for the next time. Raises DatasetError, WeightsError or OpsError.
    """
    whole = readable(read(spec))
    warn(whole.skipped, console)
    found, (loaded, variant) = whole.photographs, _loaded(backbone, weights, parts)
    with bars(console) as progress:
        task = progress.add_task("describing", total=len(found))
        [vectors] = describe_by_heads(
            [one.path for one in found],
            [variant],
            run=maps_runner(loaded.trunk, precision_of(backbone), MAPS),
            trunk=trunk_sha256(loaded),
            profile=Profile(backbone=backbone, weights_sha256="", sizes=Sizes(channels=loaded.trunk.channels)),
            folder=folder,
            progress=lambda: progress.advance(task),
        )
    _, labels = np.unique([one.label for one in found], return_inverse=True)
    how = f"{backbone}, {variant.name}"
    return LabelledVectors(vectors=vectors, labels=labels.astype(np.int64), queries=np.arange(len(vectors)), how=how)
