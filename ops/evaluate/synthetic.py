"""Synthetic distractors: vectors with the statistics of real descriptors.

They are drawn from a Gaussian with the mean and covariance of the references, then scaled to unit norm. So they lie in
the same cone as the descriptors and have the same correlations; vectors drawn evenly from the sphere have neither and
distract nobody. Real pictures also form clusters, so the same number of real distractors may be harder.
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
    """Return vectors [count, D] of unit norm, the same for the same seed.

    references: [N, D], at least two. ValueError for fewer: they have no covariance.
    """
    if len(references) < 2:
        raise ValueError(f"got {len(references)} references; expected at least 2 for a covariance")
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
