"""Descriptors that are to things as they will be to new ones.

A whitening makes the things that it learned from nearly orthogonal, and others not: the mean cosine of two of its own
things is 0.01 to 0.06, of new kinds of things 0.13 to 0.4 (docs/research/expansion.md). A network that learned to
expand from its own things alone would meet neighbours such as it never saw. So each world has a whitening that learned
from one kind of pictures, and the other kinds are new to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from landseer.export.models.beside import SideBySide
from landseer.export.training.episodes import Kind
from landseer.export.training.localisation import projection
from landseer.export.training.two_maps import SHRINKAGE, side_by_side
from landseer.export.training.whitening import learned_whitening, pairs_within

Vectors = NDArray[np.float32]


def worlds(
    pooled: Mapping[str, Kind], learned_from: Sequence[str], served: nn.Module, *, seed: int
) -> list[dict[str, Kind]]:
    """Return the kinds, as pooled before the whitening, once for each name of `learned_from`: the whitening's teacher.

    served: the whitening of the server; those of the worlds are of its form.
    """
    found = []
    for name in learned_from:
        whitening = learned(served, pooled[name], seed=seed)
        found.append({other: Kind(whitened(whitening, kind.vectors), kind.labels) for other, kind in pooled.items()})
    return found


def learned(served: nn.Module, kind: Kind, *, seed: int) -> nn.Module:
    """Return a whitening of the form of the served one, learned from pairs of pictures of one thing."""
    if isinstance(served, SideBySide):
        return side_by_side(kind.vectors, kind.labels, channels=len(served.last.mean), seed=seed)
    queries, positives = pairs_within(kind.labels, most=1, seed=seed)
    return projection(learned_whitening(kind.vectors, queries, positives, shrinkage=SHRINKAGE))


@torch.inference_mode()
def whitened(whitening: nn.Module, vectors: Vectors) -> Vectors:
    """Apply a whitening to pooled vectors [N, P]. → unit [N, D]."""
    return np.asarray(whitening(torch.from_numpy(vectors)).numpy(), np.float32)
