"""HOW's local features of a picture: smoothed, weighed by their length, the strongest of all scales.

Tolias, Jenicek, Chum: "Learning and Aggregating Deep Local Descriptors for Instance-Level Recognition", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

FLOOR = 1e-10
"""Under the root of the attention."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """The strongest local features, strongest first."""

    features: Map
    """[n, C]."""
    attention: Map
    """[n]."""
    positions: NDArray[np.int64]
    """[n, 2]: x, y in cells of the feature map of their scale."""
    scales: Map
    """[n]."""


def attention(features: Map) -> Map:
    """Return the L2 norm of each feature of a map [C, H, W]: [H, W]."""
    lengths: Map = np.sqrt(np.square(features).sum(axis=0) + np.float32(FLOOR))
    return lengths


def smoothed(features: Map, *, size: int = 3) -> Map:
    """Return the mean over size x size cells around each of a map [C, H, W]; cells beyond the edge do not count.

    size: odd. The sums come from a summed-area table in fp64.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"got a window of {size}; expected an odd number, so that it has a centre")
    _, height, width = features.shape
    table = np.zeros((len(features), height + 1, width + 1))
    table[:, 1:, 1:] = features.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    (top, bottom), (left, right) = _window(height, size), _window(width, size)
    sums = table[:, bottom][:, :, right] - table[:, top][:, :, right] - table[:, bottom][:, :, left]
    cells = (bottom - top)[:, None] * (right - left)
    means: Map = ((sums + table[:, top][:, :, left]) / cells).astype(np.float32)
    return means


def strongest(maps: Sequence[Map], weights: Sequence[Map], scales: Sequence[float], *, count: int) -> Selected:
    """Return the `count` features of largest weight over all scales. maps: of [C, H, W], weights: of [H, W].

    Of equal ones the earlier scale, then the upper, then the left.
    """
    flat = np.concatenate([weight.ravel() for weight in weights])
    best = np.argsort(-flat, kind="stable")[:count]
    features = np.concatenate([features.reshape(len(features), -1).T for features in maps])
    positions = np.concatenate([np.argwhere(np.ones(weight.shape))[:, ::-1] for weight in weights])
    sizes = np.repeat(np.asarray(scales, np.float32), [weight.size for weight in weights])
    return Selected(features=features[best], attention=flat[best], positions=positions[best], scales=sizes[best])


def weighted_spoc(maps: Sequence[Map], weights: Sequence[Map]) -> Map:
    """Return HOW's global descriptor, with which it trains: the weighted sum over all scales at unit norm, [C]."""
    pairs = zip(maps, weights, strict=True)
    total = np.sum([(features.astype(np.float64) * weight).sum(axis=(1, 2)) for features, weight in pairs], axis=0)
    unit: Map = (total / (np.linalg.norm(total) + 1e-6)).astype(np.float32)
    return unit


def _window(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the window of each cell begins and ends, [length] each."""
    cells = np.arange(length)
    return np.maximum(cells - size // 2, 0), np.minimum(cells + size // 2 + 1, length)
