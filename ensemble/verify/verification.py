"""Spatial verification: how many local features of a candidate lie where one affine map of the query puts them.

D2R, as in TF2 DELF: each feature of the query is matched with its nearest of the candidate if that is nearer than a
distance; RANSAC of three matches, 1,000 trials, fits the affine map from candidate to query; matches that it puts
within 10 pixels are inliers. The short list of 100 is then sorted by (inliers, score). Three matches or fewer are no
evidence: any three points fit.
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
"""Matches that an affine map goes through exactly."""
METHODS = ("ransac", "magsac", "accurate")
"""RANSAC, and two of OpenCV's USAC: MAGSAC++ scoring, or graph cuts. All are seeded alike each time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Local features of a picture and where they are."""

    features: NDArray[np.float32]
    """[N, D], at unit norm."""
    positions: NDArray[np.float32]
    """[N, 2]: x, y in pixels of the picture as it was described."""


@dataclass(frozen=True, kw_only=True)
class VerificationSettings:
    """How strictly to verify. The defaults are D2R's, which know neither `mutual` nor `least`."""

    distance: float = 0.9
    """Features farther apart do not match. Of unit norm: 0.9 is a cosine of 0.595."""
    residual: float = 10.0
    """How many pixels off an inlier may be, in the query."""
    trials: int = 1000
    """Samples that are drawn at most."""
    confidence: float = 0.999
    """Of having drawn a sample without outliers, at which drawing ends."""
    method: str = "ransac"
    """One of `METHODS`."""
    mutual: bool = False
    """Whether a match must be the nearest from both sides; otherwise many may share one feature of the candidate."""
    least: int = 0
    """Fewer inliers count as none: so many agree by chance. D2R has no such bound."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"got method {self.method!r}; expected one of {', '.join(METHODS)}")
        if not (self.distance > 0 and self.residual > 0 and self.trials > 0 and 0 < self.confidence < 1):
            raise ValueError(f"got {self}; distance, residual and trials must be above 0, confidence between 0 and 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Verified:
    """What verification found of one candidate."""

    matches: Places
    """[M, 2], rows of the query's and of the candidate's features."""
    inliers: NDArray[np.bool_]
    """[M], whether each match agrees with the map; all False if there is none."""
    affine: NDArray[np.float64] | None
    """[2, 3], from the candidate's pixels to the query's; None if nothing fits."""

    @property
    def count(self) -> int:
        """How many matches agree."""
        return int(np.count_nonzero(self.inliers))


def matched(query: Floats, candidate: Floats, *, distance: float, mutual: bool = False) -> Places:
    """Return matches [M, 2] of features [N, D] and [N', D]: for each of the query's its nearest, if below distance.

    Of equally near ones the earlier; in the order of the query's features.
    """
    if not len(query) or not len(candidate):
        return np.empty((0, 2), np.int64)
    if query.shape[1] != candidate.shape[1]:
        raise ValueError(f"got features of {query.shape[1]} and of {candidate.shape[1]} values; expected the same")
    squares = np.square(query).sum(axis=1)[:, None] + np.square(candidate).sum(axis=1) - 2.0 * (query @ candidate.T)
    nearest, rows = squares.argmin(axis=1), np.arange(len(query))
    kept = squares[rows, nearest] < distance**2
    if mutual:
        kept &= squares.argmin(axis=0)[nearest] == rows
    return np.stack([rows[kept], nearest[kept]], axis=1)


def verified(query: Located, candidate: Located, settings: VerificationSettings | None = None) -> Verified:
    """Match two pictures and fit an affine map to the matches. ValueError if their features have another D."""
    settings = settings or VerificationSettings()
    pairs = matched(query.features, candidate.features, distance=settings.distance, mutual=settings.mutual)
    if len(pairs) <= SAMPLES:
        return Verified(matches=pairs, inliers=np.zeros(len(pairs), np.bool_), affine=None)
    affine, inliers = _fitted(candidate.positions[pairs[:, 1]], query.positions[pairs[:, 0]], settings)
    return Verified(matches=pairs, inliers=inliers, affine=affine)


def verify(query: Located, candidates: Sequence[Located], settings: VerificationSettings | None = None) -> Places:
    """Return the number of inliers of each candidate: int64 [C], 0 where there are fewer than `least`."""
    settings = settings or VerificationSettings()
    found = (verified(query, candidate, settings).count for candidate in candidates)
    counts = np.fromiter(found, np.int64, len(candidates))
    return np.where(counts < settings.least, 0, counts)


def reordered(inliers: NDArray[np.integer[Any]], scores: Floats) -> Places:
    """Return the order of a list by (inliers, score), both descending; of equal ones the earlier first: [C].

    Candidates that were not verified have 0 inliers.
    """
    if np.shape(inliers) != np.shape(scores):
        raise ValueError(f"got {len(inliers)} counts of inliers and {len(scores)} scores; expected one of each")
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
