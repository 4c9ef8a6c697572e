"""Spatial verification: count the local features of a candidate that fit one affine map to the query.

D2R, as in TF2 DELF: match each feature of the query with the nearest feature of the candidate, within a maximum
distance; fit an affine map from candidate to query by RANSAC (three matches, 1,000 trials); matches mapped to within 10
pixels are inliers. The short list of 100 is then sorted by (inliers, score). Three matches or fewer are no evidence:
any three points fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.int64]

SAMPLES = 3
"""Matches that determine an affine map."""
METHODS = ("ransac", "magsac", "accurate")
"""RANSAC, and two USAC variants of OpenCV: MAGSAC++ scoring, or graph cuts. All use a fixed seed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Local features of a picture with their positions."""

    features: NDArray[np.float32]
    """[N, D], unit norm."""
    positions: NDArray[np.float32]
    """[N, 2]: x, y in pixels of the model's input."""


@dataclass(frozen=True, kw_only=True)
class VerificationSettings:
    """Parameters of verification. The defaults are those of D2R, which has neither `mutual` nor `least`."""

    distance: float = 0.9
    """Largest distance of a match. Features have unit norm: 0.9 is a cosine of 0.595."""
    residual: float = 10.0
    """Largest error of an inlier, in pixels of the query."""
    trials: int = 1000
    """Most samples drawn."""
    confidence: float = 0.999
    """Probability of having drawn a sample without outliers at which sampling stops."""
    method: str = "ransac"
    """One of `METHODS`."""
    mutual: bool = False
    """Whether matches must be mutual nearest neighbours; otherwise many may share a feature of the candidate."""
    least: int = 0
    """Fewer inliers count as 0: that many agree by chance. D2R has no such threshold."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"got method {self.method!r}; expected one of {', '.join(METHODS)}")
        if not (self.distance > 0 and self.residual > 0 and self.trials > 0 and 0 < self.confidence < 1):
            raise ValueError(f"got {self}; expected distance, residual and trials above 0, confidence between 0 and 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Verified:
    """The verification of one candidate."""

    matches: Places
    """[M, 2], rows of the query's and of the candidate's features."""
    inliers: NDArray[np.bool_]
    """[M], whether each match fits the map; all False without a map."""
    affine: NDArray[np.float64] | None
    """[2, 3], from pixels of the candidate to pixels of the query; None if none was found."""

    @property
    def count(self) -> int:
        """Number of inliers."""
        return int(np.count_nonzero(self.inliers))


def matched(query: Floats, candidate: Floats, *, distance: float, mutual: bool = False) -> Places:
    """Return matches [M, 2] of features [N, D] and [N', D]: the nearest of each query feature, if within distance.

    Ordered by the query's features; ties go to the earlier candidate feature.
    """
    if not len(query) or not len(candidate):
        return np.empty((0, 2), np.int64)
    if query.shape[1] != candidate.shape[1]:
        raise ValueError(f"got features of {query.shape[1]} and {candidate.shape[1]} values; expected equal sizes")
    squares = np.square(query).sum(axis=1)[:, None] + np.square(candidate).sum(axis=1) - 2.0 * (query @ candidate.T)
    nearest, rows = squares.argmin(axis=1), np.arange(len(query))
    kept = squares[rows, nearest] < distance**2
    if mutual:
        kept &= squares.argmin(axis=0)[nearest] == rows
    return np.stack([rows[kept], nearest[kept]], axis=1)


def verified(query: Located, candidate: Located, settings: VerificationSettings | None = None) -> Verified:
    """Match two pictures and fit an affine map to the matches. ValueError if their features differ in size."""
    settings = settings or VerificationSettings()
    pairs = matched(query.features, candidate.features, distance=settings.distance, mutual=settings.mutual)
    if len(pairs) <= SAMPLES:
        return Verified(matches=pairs, inliers=np.zeros(len(pairs), np.bool_), affine=None)
    affine, inliers = _fitted(candidate.positions[pairs[:, 1]], query.positions[pairs[:, 0]], settings)
    return Verified(matches=pairs, inliers=inliers, affine=affine)


def verify(query: Located, candidates: Sequence[Located], settings: VerificationSettings | None = None) -> Places:
    """Return the number of inliers of each candidate: int64 [C], 0 if fewer than `least`."""
    settings = settings or VerificationSettings()
    found = (verified(query, candidate, settings).count for candidate in candidates)
    counts = np.fromiter(found, np.int64, len(candidates))
    return np.where(counts < settings.least, 0, counts)


def reordered(inliers: NDArray[np.integer[Any]], scores: Floats) -> Places:
    """Return the order of a list by (inliers, score), both descending: [C]. Ties keep their order.

    Candidates that were not verified have 0 inliers.
    """
    if np.shape(inliers) != np.shape(scores):
        raise ValueError(f"got {len(inliers)} inlier counts and {len(scores)} scores; expected equally many")
    order: Places = np.lexsort((-np.asarray(scores, np.float64), -np.asarray(inliers, np.int64)))
    return order


def _fitted(
    here: Floats, there: Floats, settings: VerificationSettings
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    import cv2

    methods = {"ransac": cv2.RANSAC, "magsac": cv2.USAC_MAGSAC, "accurate": cv2.USAC_ACCURATE}
    found: tuple[Any, Any] = cv2.estimateAffine2D(
        np.ascontiguousarray(here, np.float64),
        np.ascontiguousarray(there, np.float64),
        method=methods[settings.method],
        ransacReprojThreshold=settings.residual,
        maxIters=settings.trials,
        confidence=settings.confidence,
    )
    affine, inliers = found
    if affine is None or not np.isfinite(affine).all():
        return None, np.zeros(len(here), np.bool_)
    return affine, inliers.ravel().astype(np.bool_)
