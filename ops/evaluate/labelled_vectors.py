"""Descriptors of a labelled data set by one backbone and its head, at one scale; what was described before is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import Wanted, find_parts, trunk_sha256
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import trunk_runner
from landseer.ops.evaluate.head_variants import variants
from landseer.ops.evaluate.head_vectors import Vectors, describe
from landseer.ops.progress import bars, warn


@dataclass(frozen=True, kw_only=True, eq=False)
class Described:
    """A data set as vectors."""

    vectors: Vectors
    """[N, D], unit."""
    labels: NDArray[np.int64]
    """[N], classes in the order of their names."""
    how: str
    """Backbone and descriptor, for people."""


def described(
    spec: str, backbone: str, *, weights: Path | None, parts: Path | None, folder: Path, console: Console
) -> Described:
    """Describe the photographs of a data set by the trained parts given, else by those that come with Landseer.

    DatasetError, WeightsError or OpsError say what is wrong.
    """
    whole = readable(read(spec))
    warn(whole.skipped, console)
    found, loaded = whole.photographs, BACKBONES[backbone].load(weights, "auto")
    trained = find_parts(loaded, Wanted(backbone=backbone, weights=weights, parts=parts))
    chosen = list(variants(loaded.trunk.channels, [trained] if trained else []))
    variant = chosen[-1] if trained else chosen[0]
    with bars(console) as progress:
        task = progress.add_task("describing", total=len(found))
        [vectors] = describe(
            [one.path for one in found],
            [variant],
            run=trunk_runner(loaded.trunk, precision_of(backbone)),
            trunk=trunk_sha256(loaded),
            profile=Profile(backbone=backbone, weights_sha256="", sizes=Sizes(channels=loaded.trunk.channels)),
            folder=folder,
            progress=lambda: progress.advance(task),
        )
    _, labels = np.unique([one.label for one in found], return_inverse=True)
    return Described(vectors=vectors, labels=labels.astype(np.int64), how=f"{backbone}, {variant.name}")
