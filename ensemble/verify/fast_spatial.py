"""Fast spatial matching (Philbin et al. 2007): is there one map from the query to the candidate that many matches fit?

A keypoint has position, size and orientation, so one match determines a similarity. Each match proposes one; the best
few are refined on their inliers to an affine map, then to a homography, which flat things photographed from close up
need. Philbin et al. stop at the affine map. Maps that no camera makes are rejected: mirrored, collapsed, stretched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.affine import FLATTEST, LARGEST, SMALLEST, refine
from landseer.ensemble.verify.matching import Matches, one_each
from landseer.ensemble.verify.proposals import FEWEST, WHOLE, Pairs, propose

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MATCHES = 300
"""Matches considered, those with the fewest differing bits: time grows with their square."""
COARSE, FINE = 20.0, 8.0
"""Largest error of an inlier in pixels of the candidate: of a similarity from one match, and of a refined map."""
LIMITS = np.array([COARSE, COARSE, FINE])
"""Of an inlier, each time that the affine map is refined."""
LARGER = 2.0
"""Largest factor between the scale of a match and that of the map it fits; 1.5 times that for a refined map."""
REFINED = 3
"""How many different similarities are refined, best first."""
ENOUGH_FOR_HOMOGRAPHY = 6
BIT = 0.05
"""Pixels of error that weigh as much as a differing bit, where a keypoint must choose among matches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The best map from a query to a candidate."""

    matches: Matches
    """Its inliers; no keypoint occurs twice."""
    map: Floats | None
    """[3, 3], a homography from pixels of the query's input to pixels of the candidate's; None if none was found."""
    most: int
    """How many inliers there could be: keypoints of the query, or of the candidate if fewer, that have a match."""

    @property
    def inliers(self) -> int:
        """Their number."""
        return len(self.matches)


def fit(query: CompactKeypoints, candidate: CompactKeypoints, matches: Matches) -> Fit:
    """Fit a map to the matches of two pictures; without inliers if there is none."""
    most = matches.most
    if len(matches) > MOST_MATCHES:
        matches = matches.take(np.sort(np.argsort(matches.distances, kind="stable")[:MOST_MATCHES]))
    best = Fit(matches=matches.take(slice(0)), map=None, most=most)
    if most < FEWEST:
        return best
    pairs = _pairs(query, candidate, matches)
    agreeing = np.empty((REFINED, len(matches)), np.bool_)
    for inliers in agreeing[: propose()(pairs, COARSE, LARGER, agreeing)]:
        found = _refined(pairs, matches, inliers)
        if found is not None and len(found[1]) > best.inliers:
            best = Fit(matches=matches.take(found[1]), map=found[0], most=most)
    return best


def points_of(query: CompactKeypoints | Patches, candidate: CompactKeypoints | Patches, matches: Matches) -> Floats:
    """Return the positions of matches in query and candidate, pixels: [4, m]."""
    points = np.empty((4, len(matches)))
    points[:2] = query.positions[matches.query].T
    points[2:] = candidate.positions[matches.candidate].T
    return points


def _pairs(query: CompactKeypoints, candidate: CompactKeypoints, matches: Matches) -> Pairs:
    """Return the geometry of matches. A keypoint with many matches counts once."""
    sizes = candidate.sizes[matches.candidate].astype(np.float64) / query.sizes[matches.query]
    angles = candidate.angles[matches.candidate].astype(np.float64) - query.angles[matches.query]
    here, there = (np.bincount(rows)[rows] for rows in (matches.query, matches.candidate))
    turns = np.stack([np.cos(angles), np.sin(angles)])
    return points_of(query, candidate, matches), sizes, turns, WHOLE // np.maximum(here, there)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Alike:
    """The matches of a scale like that of the map that is refined."""

    matches: Matches
    points: Floats
    """[4, m], as of `Pairs`."""
    alike: Mask
    """[m], which they are."""

    def errors(self, map: Floats) -> Floats:
        """Return the distance from each mapped point to its match, [m]; infinite if not alike or behind the camera."""
        across, down, depth = map[:, :2] @ self.points[:2] + map[:, 2:]
        known = self.alike & (depth > 1e-6)
        depth = np.where(known, depth, 1.0)
        return np.where(known, np.hypot(across / depth - self.points[2], down / depth - self.points[3]), np.inf)

    def inliers(self, map: Floats) -> NDArray[np.int64]:
        """Return the places of the inliers of a map, of which no keypoint is in two."""
        errors = self.errors(map)
        places = np.flatnonzero(errors <= FINE)
        some = self.matches.take(places)
        return places[one_each(some, errors[places] + BIT * some.distances)]


def _refined(pairs: Pairs, matches: Matches, inliers: Mask) -> tuple[Floats, NDArray[np.int64]] | None:
    """Return the affine map or homography with most inliers, and their places; None without one."""
    alike, affine = np.empty(len(matches), np.bool_), np.eye(3)
    if not refine()(pairs[:2], LIMITS, 1.5 * LARGER, (inliers, alike), affine[:2]):
        return None
    those = _Alike(matches=matches, points=pairs[0], alike=alike)
    best = affine, those.inliers(affine)
    if len(best[1]) >= ENOUGH_FOR_HOMOGRAPHY:
        robust = _homography(those.points[:, those.errors(affine) <= 3 * COARSE], robust=True)
        best = _better(those, robust, best, more=1)
        # Least squares on the nearest of the inliers place the outline better.
        near = best[1][those.errors(best[0])[best[1]] <= FINE / 2]
        if len(near) >= ENOUGH_FOR_HOMOGRAPHY:
            exact = _homography(those.points[:, near], robust=False)
            best = _better(those, exact, best, more=-len(best[1]) // 20)
    return best if len(best[1]) >= FEWEST else None


def _better(
    those: _Alike, map: Floats | None, best: tuple[Floats, NDArray[np.int64]], *, more: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return a homography with its inliers if it is plausible and has `more` more than the best, otherwise the best."""
    if map is None:
        return best
    inside = those.inliers(map)
    good = len(inside) >= len(best[1]) + more and _plausible(map, those.points[:2, inside].T)
    return (map, inside) if good else best


def _homography(points: Floats, *, robust: bool) -> Floats | None:
    """Return a homography [3, 3] of points [4, k], by least squares or robust; None if there is none.

    Robust: MAGSAC++ (Barath et al. 2020) with a fixed seed.
    """
    import cv2

    here, there = np.ascontiguousarray(points[:2].T), np.ascontiguousarray(points[2:].T)
    method = cv2.USAC_MAGSAC if robust else 0
    found: tuple[Any, Any] = cv2.findHomography(here, there, method, 0.75 * FINE, None, 200, 0.99)
    map = found[0]
    return None if map is None or not np.isfinite(map).all() else np.asarray(map, np.float64)


def _plausible(map: Floats, points: Floats) -> bool:
    """Return whether a homography keeps the box around points [k, 2] convex, in front, and not too distorted."""
    corners = box_of(points)
    mapped = corners @ map[:, :2].T + map[:, 2]
    depths = mapped[:, 2]
    if (depths <= 1e-6).any():
        return False
    places = mapped[:, :2] / depths[:, None]
    sides = np.roll(places, -1, axis=0) - places
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    if not (turns > 0).all():
        return False
    jacobians = (map[:2, :2][None] - places[:, :, None] * map[2, :2][None, None]) / depths[:, None, None]
    return all(_camera_like(jacobian, 2 * FLATTEST, 2 * LARGEST) for jacobian in jacobians)


def box_of(points: Floats) -> Floats:
    """Return the corners of the box around points [k, 2]: top left, top right, bottom right, bottom left, [4, 2]."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _camera_like(linear: Floats, flattest: float, largest: float) -> bool:
    """Return whether a linear map [2, 2] is not mirrored, and neither collapsed nor stretched too much."""
    if not linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0] > 0:
        return False
    long, short = np.linalg.svd(linear, compute_uv=False)
    return bool(long <= largest and short >= SMALLEST * LARGEST / largest and long <= flattest * short)
