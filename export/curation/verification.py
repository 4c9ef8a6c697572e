"""Verify that two pictures show the same object: one affine model must explain enough keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.export.curation.features import Features
from landseer.export.curation.settings import MatchSettings

Points = NDArray[np.float32]
"""[N, 2]: x, y in pixels of a reduced picture."""
LARGEST_ZOOM = 6.0
"""Maximum zoom in or out; beyond it a few points have collapsed, and the model is no view of an object."""
LARGEST_SLANT = 4.0
"""Maximum ratio of the zooms of two directions, for the same reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Two pictures that show the same object."""

    first: Points
    """[M, 2]: the inliers in the first picture."""
    second: Points
    """[M, 2]: the same points in the second."""
    transform: NDArray[np.float64]
    """[2, 3]: the affine model, from the first picture to the second."""

    @property
    def inliers(self) -> int:
        """Number of points that agree with the model."""
        return len(self.first)


@dataclass(frozen=True, kw_only=True, eq=False)
class Edge:
    """Two matching pictures of a class, by index; the match maps the first to the second."""

    first: int
    second: int
    match: Match


def verify(first: Features, second: Features, settings: MatchSettings) -> Match | None:
    """Return the match of two pictures, or None if fewer than `settings.inliers` points agree.

    Nearest descriptors that pass the ratio test, one for each location, then an affine model by MAGSAC++ (Barath et al.
    2020). Models that mirror or flatten the picture are rejected: no view of a solid object does that. Deterministic.
    The ratio test goes from the first picture to the second, so the reverse order may differ by a few points.
    """
    found, near = tentative(first, second, settings.ratio)
    if len(found) < settings.inliers:
        return None
    transform, agree = _affine(found, near, settings)
    if transform is None or agree.sum() < settings.inliers or not plausible(transform):
        return None
    return Match(first=found[agree], second=near[agree], transform=transform)


def tentative(first: Features, second: Features, ratio: float) -> tuple[Points, Points]:
    """Return the points [N, 2] of both pictures with matching descriptors, best first.

    A location counts once: SIFT repeats it for each of its orientations, and duplicates would vote twice.
    """
    if len(first.points) == 0 or len(second.points) < 2:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    similar = first.rooted() @ second.rooted().T
    rows, nearest = np.arange(len(similar)), similar.argmax(axis=1)
    best = np.sqrt(np.maximum(2 - 2 * similar[rows, nearest], 0))
    similar[rows, nearest] = -1
    next_best = np.sqrt(np.maximum(2 - 2 * similar.max(axis=1), 0))
    order = np.argsort(best, kind="stable")
    order = order[best[order] < ratio * next_best[order]]
    found, near = first.points[order], second.points[nearest[order]]
    once = np.intersect1d(_first_at(found), _first_at(near))
    return found[once], near[once]


def plausible(transform: NDArray[np.float64]) -> bool:
    """Return whether an affine model [2, 3] can be another view of an object."""
    if not np.isfinite(transform).all() or np.linalg.det(transform[:, :2]) <= 0:
        return False
    longest, shortest = np.linalg.svd(transform[:, :2], compute_uv=False)
    zoomed = longest > LARGEST_ZOOM or shortest < 1 / LARGEST_ZOOM
    return bool(not zoomed and longest <= LARGEST_SLANT * shortest)


def _first_at(points: Points) -> NDArray[np.intp]:
    """Return the rows of the first point at each pixel."""
    return np.unique(np.floor(points).astype(np.int64), axis=0, return_index=True)[1]


def _affine(
    found: Points, near: Points, settings: MatchSettings
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Return the model [2, 3] or None, and which points agree with it [N]."""
    import cv2

    parameters = cv2.UsacParams()
    parameters.score, parameters.loMethod = cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA
    parameters.threshold, parameters.confidence = settings.pixels, 0.999
    parameters.maxIterations, parameters.randomGeneratorState = settings.trials, settings.seed
    transform, agree = cv2.estimateAffine2D(found, near, params=parameters)
    if transform is None:
        return None, np.zeros(len(found), bool)
    return np.asarray(transform, np.float64), np.asarray(agree)[:, 0] > 0
