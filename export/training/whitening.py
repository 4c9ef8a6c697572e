"""Whitening learned from descriptors: PCA-whitening, and the discriminative one that matching pairs give.

Each returns the mean [D] and the matrix [d, D] of x ↦ l2n(P (x - m)), directions in descending order of variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """An affine map, to be followed by L2 normalisation."""

    mean: Floats
    """[D]."""
    matrix: Floats
    """[d, D]."""

    def __call__(self, x: NDArray[np.floating[Any]]) -> Floats:
        """Apply. x: [N, D] → unit rows [N, d]."""
        projected = (np.asarray(x, np.float64) - self.mean) @ self.matrix.T
        whitened: Floats = projected / (np.linalg.norm(projected, axis=1, keepdims=True) + 1e-6)
        return whitened


def pca_whitening(x: NDArray[np.floating[Any]], *, dims: int | None = None, power: float = 1.0) -> Whitening:
    """Rotate to the principal axes of x [N, D], and divide each by its standard deviation to the `power`.

    power: 1 whitens (Jégou and Chum 2012), 0 only rotates; in between it is half-hearted on purpose, since the
    directions that vary least are mostly noise.
    """
    data = _rows(x)
    mean = data.mean(axis=0)
    centred = data - mean
    return pca_of(mean, centred.T @ centred / len(data), dims=dims, power=power)


def pca_of(mean: Floats, covariance: Floats, *, dims: int | None = None, power: float = 1.0) -> Whitening:
    """Do as `pca_whitening` does, for data of which the mean [D] and the covariance [D, D] are known."""
    variances, axes = _principal(covariance)
    scales = np.maximum(variances, LEAST_VARIANCE) ** (-power / 2)
    return Whitening(mean=mean, matrix=(axes * scales).T[:dims])


def learned_whitening(
    x: NDArray[np.floating[Any]], queries: Ids, positives: Ids, *, dims: int | None = None, shrinkage: float = 0.0
) -> Whitening:
    """Whiten what differs between matching pairs, then rotate to what varies most. Radenovic et al. 2018, eqs. 8, 9.

    x: [N, D]; queries, positives: rows of x that match, [M] each. As in the authors' code the mean is that of the
    queries, and the covariance of the differences gets as much of the identity as makes it positive definite.
    shrinkage: ours, not the paper's: adds that much of the mean variance to every direction first, for data so few
    that some directions hardly occur in them; 0 is the paper's.
    """
    data = _rows(x)
    if len(queries) != len(positives) or not len(queries):
        raise ValueError(f"got {len(queries)} queries and {len(positives)} positives; expected as many of each")
    mean = data[queries].mean(axis=0)
    differences = data[queries] - data[positives]
    within = differences.T @ differences / len(queries)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    shrink = np.linalg.inv(_cholesky(within))
    spread = (data - mean) @ shrink.T
    _, axes = _principal(spread.T @ spread)
    return Whitening(mean=mean, matrix=(axes.T @ shrink)[:dims])


def pairs_within(labels: NDArray[np.int64], *, most: int, seed: int) -> tuple[Ids, Ids]:
    """Draw matching pairs: for every row, up to `most` others of its label. labels: [N] → two [M]."""
    draw = np.random.default_rng(seed)
    queries, positives = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        for row in members:
            others = members[members != row]
            chosen = draw.choice(others, min(most, len(others)), replace=False)
            queries.append(np.full(len(chosen), row))
            positives.append(chosen)
    return np.concatenate(queries).astype(np.int64), np.concatenate(positives).astype(np.int64)


def _rows(x: NDArray[np.floating[Any]]) -> Floats:
    data = np.asarray(x, np.float64)
    if data.ndim != 2 or len(data) < 2 or not np.isfinite(data).all():
        raise ValueError(f"got descriptors of shape {data.shape}; expected two or more finite rows [N, D]")
    return data


def _principal(covariance: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues [D] and eigenvectors [D, D] as columns, descending."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]


def _cholesky(matrix: Floats) -> Floats:
    """Cholesky factor; the diagonal grows tenfold, from 1e-10, until there is one."""
    for exponent in range(-11, 6):
        added = 0.0 if exponent == -11 else 10.0**exponent
        try:
            factor: Floats = np.linalg.cholesky(matrix + added * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            continue
        return factor
    raise ValueError("the differences of the pairs have no finite covariance")
