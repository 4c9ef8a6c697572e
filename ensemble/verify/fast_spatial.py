"""Fast spatial matching (Philbin et al. 2007): is there one map from the query to the candidate that many matches fit?

A keypoint has position, size and orientation, so one match determines a similarity. Each match proposes one; the best
few are refined on their inliers to an affine map, then to a homography, which flat things photographed from close up
need. Philbin et al. stop at the affine map. Maps that no camera makes are rejected: mirrored, collapsed, stretched.

One picture takes 0.25 to 0.4 ms with some 20 to 80 matches (one core, AVX2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.verify.matching import Matches, one_each

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MATCHES = 300
"""Matches considered, those with the fewest differing bits: time grows with their square."""
COARSE, FINE = 20.0, 8.0
"""Largest error of an inlier in pixels of the candidate: of a similarity from one match, and of a refined map."""
LARGER = 2.0
"""Largest factor between the scale of a match and that of the map it fits."""
TURN = 0.77
"""Least cosine of the angle between them: 40 degrees."""
FEWEST = 3
"""Matches that determine an affine map, and the fewest that count."""
PROPOSALS, REFINED = 40, 3
"""Similarities looked at, best first, and how many different ones are refined."""
ENOUGH_FOR_HOMOGRAPHY = 6
FLATTEST, LARGEST, SMALLEST = 4.5, 12.0, 0.08
"""Largest ratio of the scales of an affine map, largest and smallest scale; twice that for a homography at a corner."""
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
    best = Fit(matches=matches.take(np.empty(0, np.int64)), map=None, most=most)
    if most < FEWEST:
        return best
    pairs = _Pairs.of(query, candidate, matches)
    for agreeing in _proposals(pairs):
        found = _refined(pairs, agreeing)
        if found is not None and len(found[1]) > best.inliers:
            best = Fit(matches=matches.take(found[1]), map=found[0], most=most)
    return best


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """The geometry of matches; points are complex numbers where that is shorter."""

    matches: Matches
    here: NDArray[np.complex64]
    """[m], positions in the query."""
    there: NDArray[np.complex64]
    """[m], positions in the candidate."""
    steps: NDArray[np.complex64]
    """[m], scale and rotation from the query's keypoint to the candidate's."""

    @classmethod
    def of(cls, query: CompactKeypoints, candidate: CompactKeypoints, matches: Matches) -> _Pairs:
        here, there = query.positions[matches.query], candidate.positions[matches.candidate]
        sizes = candidate.sizes[matches.candidate] / query.sizes[matches.query]
        turns = candidate.angles[matches.candidate] - query.angles[matches.query]
        return cls(
            matches=matches,
            here=(here[:, 0] + 1j * here[:, 1]).astype(np.complex64),
            there=(there[:, 0] + 1j * there[:, 1]).astype(np.complex64),
            steps=(sizes * np.exp(1j * turns)).astype(np.complex64),
        )

    def errors(self, map: Floats) -> Floats:
        """Return the distance from each mapped point to its match, [m]; infinite behind the camera."""
        points = np.stack([self.here.real, self.here.imag, np.ones(len(self.here))], axis=1) @ map.T
        in_front = points[:, 2] > 1e-6
        mapped = points[:, :2] / np.where(in_front, points[:, 2], 1.0)[:, None]
        return np.where(in_front, np.hypot(mapped[:, 0] - self.there.real, mapped[:, 1] - self.there.imag), np.inf)

    def points(self, chosen: Mask) -> tuple[Floats, Floats]:
        """Return the positions of some matches in query and candidate, [k, 2] each."""
        here, there = self.here[chosen], self.there[chosen]
        return np.stack([here.real, here.imag], 1).astype(float), np.stack([there.real, there.imag], 1).astype(float)


def _proposals(pairs: _Pairs) -> Iterator[Mask]:
    """Yield which matches agree with the similarity of one, [m], best first, without near repetitions."""
    steps, here, there = pairs.steps, pairs.here, pairs.there
    offsets = there - steps * here
    errors = steps[:, None] * here[None] + (offsets[:, None] - there[None])
    ratios = steps[None] / steps[:, None]
    larger = _squared(ratios)
    agree = (_squared(errors) <= COARSE**2) & (larger <= LARGER**2) & (larger >= LARGER**-2)
    agree &= (ratios.real > 0) & (np.square(ratios.real) >= TURN**2 * larger)
    scores = agree @ _shares(pairs.matches)
    seen: list[Mask] = []
    for row in np.argsort(-scores, kind="stable")[:PROPOSALS]:
        if len(seen) == REFINED or scores[row] < FEWEST:
            return
        if not any(np.count_nonzero(agree[row] & before) > 0.8 * np.count_nonzero(agree[row]) for before in seen):
            seen.append(agree[row])
            yield agree[row]


def _shares(matches: Matches) -> NDArray[np.float32]:
    """Return the share of each match in the count, [m]: a keypoint with many matches counts once."""
    here, there = (np.bincount(rows)[rows] for rows in (matches.query, matches.candidate))
    return (1.0 / np.maximum(here, there)).astype(np.float32)


def _refined(pairs: _Pairs, agreeing: Mask) -> tuple[Floats, NDArray[np.int64]] | None:
    """Return the affine map or homography with most inliers, and their places; None without one."""
    steps = pairs.steps / np.median(np.abs(pairs.steps[agreeing]))
    alike = (np.abs(steps) < 3 * LARGER / 2) & (np.abs(steps) > 2 / (3 * LARGER))
    affine, inliers = None, agreeing
    for limit in (COARSE, COARSE, FINE):
        found = _affine(*pairs.points(inliers))
        if found is None:
            break
        affine, inliers = found, (pairs.errors(found) <= limit) & alike
    if affine is None:
        return None
    best = affine, _distinct(pairs, affine, alike)
    if len(best[1]) >= ENOUGH_FOR_HOMOGRAPHY:
        robust = _homography(pairs, (pairs.errors(affine) <= 3 * COARSE) & alike, robust=True)
        best = _better(pairs, robust, alike, best, more=1)
        # Least squares on the nearest of the inliers place the outline better.
        near = _mask(best[1], len(alike)) & (pairs.errors(best[0]) <= FINE / 2)
        if np.count_nonzero(near) >= ENOUGH_FOR_HOMOGRAPHY:
            best = _better(pairs, _homography(pairs, near, robust=False), alike, best, more=-len(best[1]) // 20)
    return best if len(best[1]) >= FEWEST else None


def _better(
    pairs: _Pairs, map: Floats | None, alike: Mask, best: tuple[Floats, NDArray[np.int64]], *, more: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return a homography with its inliers if it is plausible and has `more` more than the best, otherwise the best."""
    if map is None:
        return best
    inside = _distinct(pairs, map, alike)
    good = len(inside) >= len(best[1]) + more and _plausible(map, pairs.points(_mask(inside, len(alike)))[0])
    return (map, inside) if good else best


def _distinct(pairs: _Pairs, map: Floats, alike: Mask) -> NDArray[np.int64]:
    errors = pairs.errors(map)
    places = np.flatnonzero((errors <= FINE) & alike)
    some = pairs.matches.take(places)
    return places[one_each(some, errors[places] + BIT * some.distances)]


def _affine(here: Floats, there: Floats) -> Floats | None:
    """Return the least-squares affine map [3, 3] of points [k, 2]; None if they do not determine a plausible one."""
    if len(here) < FEWEST:
        return None
    solved, _, rank, _ = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), there, rcond=None)
    if rank < solved.shape[0] or not _camera_like(solved[:2].T, FLATTEST, LARGEST):
        return None
    return np.vstack([solved.T, [0.0, 0.0, 1.0]])


def _homography(pairs: _Pairs, chosen: Mask, *, robust: bool) -> Floats | None:
    """Return a homography [3, 3], by least squares or robust; None if there is none.

    Robust: MAGSAC++ (Barath et al. 2020) with a fixed seed.
    """
    import cv2

    here, there = pairs.points(chosen)
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


def _squared(values: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.asarray(np.square(values.real) + np.square(values.imag), np.float32)


def _mask(places: NDArray[np.int64], count: int) -> Mask:
    mask = np.zeros(count, np.bool_)
    mask[places] = True
    return mask
