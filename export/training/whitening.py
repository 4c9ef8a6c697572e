"""Learn whitening from descriptors: PCA-whitening, and discriminative whitening from matching pairs.

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
    """An affine map followed by L2 normalisation."""

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

    power: 1 whitens (Jégou and Chum 2012), 0 only rotates; values in between whiten partly, because the directions that
    vary least are mostly noise.
    """
    data = _rows(x)
    mean = data.mean(axis=0)
    centred = data - mean
    return pca_of(mean, centred.T @ centred / len(data), dims=dims, power=power)


def pca_of(mean: Floats, covariance: Floats, *, dims: int | None = None, power: float = 1.0) -> Whitening:
    """Like `pca_whitening`, from the mean [D] and covariance [D, D] of the data."""
    variances, axes = _principal(covariance)
    scales = np.maximum(variances, LEAST_VARIANCE) ** (-power / 2)
    return Whitening(mean=mean, matrix=(axes * scales).T[:dims])


def learned_whitening(
    x: NDArray[np.floating[Any]], queries: Ids, positives: Ids, *, dims: int | None = None, shrinkage: float = 0.0
) -> Whitening:
    """Whiten the differences of matching pairs, then rotate to the principal axes. Radenovic et al. 2018, eqs. 8, 9.

    x: [N, D]; queries, positives: rows of x that match, [M] each. As in the authors' code the mean is that of the
    queries, and enough of the identity is added to the covariance of the differences to make it positive definite.
    shrinkage: ours; first adds this share of the mean variance to every direction, for small data sets in which some
    directions hardly occur. 0 is the paper's.
    """
    data = _rows(x)
    if len(queries) != len(positives) or not len(queries):
        raise ValueError(f"got {len(queries)} queries and {len(positives)} positives; expected equal, non-zero numbers")
    mean = data[queries].mean(axis=0)
    differences = data[queries] - data[positives]
    within = differences.T @ differences / len(queries)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    shrink = np.linalg.inv(_cholesky(within))
    spread = (data - mean) @ shrink.T
    _, axes = _principal(spread.T @ spread)
    return Whitening(mean=mean, matrix=(axes.T @ shrink)[:dims])


def pairs_within(labels: NDArray[np.int64], *, most: int, seed: int) -> tuple[Ids, Ids]:
    """Draw matching pairs: for each row, up to `most` others with its label. labels: [N] → two [M]."""
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
    """Return eigenvalues [D] and eigenvectors [D, D] as columns, descending."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]


def _cholesky(matrix: Floats) -> Floats:
    """Return the Cholesky factor; adds 1e-10, then ten times more, to the diagonal until it exists."""
    for exponent in range(-11, 6):
        added = 0.0 if exponent == -11 else 10.0**exponent
        try:
            factor: Floats = np.linalg.cholesky(matrix + added * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            continue
        return factor
    raise ValueError("the differences of the pairs have no finite covariance")
