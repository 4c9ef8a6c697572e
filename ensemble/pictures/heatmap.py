"""Heat maps of co-attention, from the stored positions of local features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS = 24
"""Cells of a heat map along the longer side of its picture."""
STRIDE = 32
"""Pixels between two features of the trunk's last map, at scale 1."""
_UNIT_SCALE = 8
"""Index of scale 1. Indices count half octaves: 0 is 1/16, 9 is the square root of 2."""


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """The positions, clusters and scales of local features, packed into four bytes each."""

    packed: NDArray[np.uint8]
    """[n, 4]: x and y in 1/256 of the picture, cluster, index of the scale in half octaves."""

    @classmethod
    def pack(
        cls,
        positions: NDArray[np.float32],
        scales: NDArray[np.float32],
        assignments: NDArray[np.int32],
        *,
        width: int,
        height: int,
    ) -> FeatureMap:
        """Pack features [n, 2] in pixels of a width x height picture, their scales [n] and clusters [n].

        Features without a cluster (-1, padding) are dropped.
        """
        kept = assignments >= 0
        at = np.floor(positions[kept] / np.array([width, height], np.float32) * 256.0)
        steps = np.round(2.0 * np.log2(np.maximum(scales[kept], 1e-6))) + _UNIT_SCALE
        columns = (np.clip(at, 0, 255), assignments[kept, None], np.clip(steps, 0, 255)[:, None])
        return cls(packed=np.concatenate(columns, axis=1).astype(np.uint8))

    @property
    def centres(self) -> NDArray[np.float64]:
        """[n, 2]: x and y in [0, 1] of the picture."""
        return (self.packed[:, :2] + 0.5) / 256.0

    @property
    def clusters(self) -> NDArray[np.uint8]:
        """[n]: the cluster of each feature."""
        return self.packed[:, 2]

    @property
    def scales(self) -> NDArray[np.float64]:
        """[n]: the factor by which the picture was resized for each feature."""
        return np.asarray(2.0 ** ((self.packed[:, 3].astype(np.float64) - _UNIT_SCALE) / 2.0))


def grid(width: int, height: int, cells: int = CELLS) -> tuple[int, int]:
    """Return height and width of the heat map of a width x height picture: `cells` on the longer side, at least 1."""
    longest = max(width, height)
    return max(1, round(cells * height / longest)), max(1, round(cells * width / longest))


def coattention_heatmap(
    features: FeatureMap, weights: NDArray[np.float32], *, width: int, height: int, long_side: int, cells: int = CELLS
) -> NDArray[np.float32]:
    """Paint the weight of each local feature's cluster at its position, scaled to a maximum of 1.

    weights: [K] of the clusters. Each feature is painted as a Gaussian. Its width is about `STRIDE / s` pixels for
    scale s, the part of the picture that the feature covers; `long_side` is the longer side in those pixels. Returns
    float32 [h, w] of `grid`; all zeros without features. Co-attention: Hu and Bors 2020, eq. 8.
    """
    rows, columns = grid(width, height, cells)
    shares = weights[np.minimum(features.clusters, len(weights) - 1)] * (features.clusters < len(weights))
    sigma = np.maximum(STRIDE / features.scales / long_side * cells, 1.0) / 2.0
    down = _gaussian(features.centres[:, 1] * rows, sigma, rows)
    across = _gaussian(features.centres[:, 0] * columns, sigma, columns)
    heat: NDArray[np.float64] = (down * shares[:, None]).T @ across
    peak = heat.max(initial=0.0)
    return np.asarray(heat / peak if peak > 0 else heat, np.float32)


def _gaussian(centres: NDArray[np.float64], sigma: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Return [n, cells]: the Gaussian around each centre, in cells, at the middle of each cell."""
    offsets = (np.arange(cells) + 0.5)[None, :] - centres[:, None]
    return np.asarray(np.exp(-0.5 * (offsets / sigma[:, None]) ** 2))
