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
from landseer.ensemble.verify.affine import FEWEST, refine
from landseer.ensemble.verify.camera import plausible
from landseer.ensemble.verify.inliers import FINE, inside
from landseer.ensemble.verify.matching import Matches
from landseer.ensemble.verify.proposals import Oriented, Proposals, proposed

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MATCHES = 300
"""Matches considered, those with the fewest differing bits: time grows with their square."""
COARSE = 20.0
"""Largest error in pixels of the candidate of a match that agrees with the similarity of one."""
LIMITS = np.array([COARSE, COARSE, FINE])
"""Of an inlier, each time that the affine map is refined."""
LARGER = 2.0
"""Largest factor between the scale of a match and that of the map it fits; 1.5 times that for a refined map."""
REFINED = 3
"""How many different similarities are refined, best first."""
ENOUGH_FOR_HOMOGRAPHY = 6


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
    some = proposed(
        matches.rows, _oriented(query), _oriented(candidate), errors=(COARSE, LARGER), limits=(MOST_MATCHES, REFINED)
    )
    considered = Matches.of(some.considered)
    best = Fit(matches=considered.take(slice(0)), map=None, most=some.most)
    for inliers in some.agreeing:
        found = _refined(some, considered, inliers)
        if found is not None and found.count > best.inliers:
            best = Fit(matches=considered.take(found.inside), map=found.map, most=some.most)
    return best


def _oriented(keypoints: CompactKeypoints) -> Oriented:
    positions, sizes, angles = (
        np.ascontiguousarray(some, np.float32) for some in (keypoints.positions, keypoints.sizes, keypoints.angles)
    )
    return positions, sizes, angles


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """A map with what fits it."""

    map: Floats
    """[3, 3]."""
    errors: Floats
    """[m], of all matches; infinite for those that cannot fit."""
    inside: Mask
    """[m], the inliers."""
    count: int
    """Of inliers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Alike:
    """The matches of a size like that of the map that is refined."""

    matches: Matches
    points: Floats
    """[4, m], as of `Proposals`."""
    alike: Mask
    """[m], which they are."""

    def fitting(self, map: Floats) -> _Map:
        """Find the inliers of a map [3, 3]."""
        errors, inliers = np.empty(len(self.alike)), np.empty(len(self.alike), np.bool_)
        count = inside()(self.matches.rows, self.points, map, self.alike, (errors, inliers))
        return _Map(map=map, errors=errors, inside=inliers, count=count)


def _refined(some: Proposals, matches: Matches, inliers: Mask) -> _Map | None:
    """Return the affine map or homography with most inliers; None without one."""
    points = some.points
    alike, affine = np.empty(len(matches), np.bool_), np.eye(3)
    if not refine()((points, some.sizes), LIMITS, 1.5 * LARGER, (inliers, alike), affine[:2]):
        return None
    those = _Alike(matches=matches, points=points, alike=alike)
    best = those.fitting(affine)
    if best.count >= ENOUGH_FOR_HOMOGRAPHY:
        robust = _homography(points[:, best.errors <= 3 * COARSE], robust=True)
        best = _better(those, robust, best, more=1)
        # Least squares on the nearest of the inliers place the outline better.
        near = best.inside & (best.errors <= FINE / 2)
        if np.count_nonzero(near) >= ENOUGH_FOR_HOMOGRAPHY:
            best = _better(those, _homography(points[:, near], robust=False), best, more=-best.count // 20)
    return best if best.count >= FEWEST else None


def _better(those: _Alike, map: Floats | None, best: _Map, *, more: int) -> _Map:
    """Return a homography with its inliers if it is plausible and has `more` more than the best, otherwise the best."""
    if map is None:
        return best
    other = those.fitting(map)
    good = other.count >= best.count + more and plausible()(map, box_of(those.points[:2, other.inside].T))
    return other if good else best


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


def box_of(points: Floats) -> Floats:
    """Return the corners of the box around points [k, 2]: top left, top right, bottom right, bottom left, [4, 2]."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
