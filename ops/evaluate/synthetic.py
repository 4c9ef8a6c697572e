"""Distractors that are no pictures: vectors with the statistics of real descriptors.

They are drawn from the Gaussian whose mean and covariance are those of the references, and made unit norm. That keeps
the cone in which descriptors lie and their correlated dimensions, which vectors drawn evenly from the sphere lack and
so are in nobody's way. Real pictures come in clusters, which a Gaussian has not: the same number of real distractors
may cost more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK = 8192
"""Vectors drawn at a time."""


def synthetic(references: Floats, count: int, *, seed: int) -> Floats:
    """Return so many vectors [count, D] of unit norm, the same for the same seed.

    references: [N, D], at least two. ValueError for fewer: they have no covariance.
    """
    if len(references) < 2:
        raise ValueError(f"got {len(references)} references; expected at least 2 to take a covariance of")
    mean = references.mean(axis=0, dtype=np.float64)
    factor = _factor(references - mean)
    return np.concatenate([np.empty((0, len(mean)), np.float32), *_drawn(mean, factor, count, seed)])


def _factor(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R [min(N, D), D] whose R.T @ R is the covariance of the rows [N, D]; by QR, so it may be singular."""
    upper: Any = np.linalg.qr(centred, mode="r")
    return np.asarray(upper / np.sqrt(len(centred) - 1), np.float64)


def _drawn(mean: NDArray[np.float64], factor: NDArray[np.float64], count: int, seed: int) -> Iterator[Floats]:
    draws = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        vectors = mean + draws.standard_normal((min(BLOCK, count - start), len(factor))) @ factor
        yield (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
