"""Whether two pictures are one photograph: resized, compressed again, brightened, or cropped a little.

A copy lies on its original by a scale and a shift, everywhere. Another photograph, even of the same flat thing from
nearly the same place, is turned or tilted against it by more; a picture with the same frame around something else
agrees only in the frame; two texts in one font agree in few of the letters that match. Thresholds:
docs/research/near-identical.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.verify.fast_spatial import box_of, fit
from landseer.ensemble.verify.matching import matches_of

Points = NDArray[np.floating[Any]]
Axis = tuple[float, float]

FEWEST, SHARE = 20, 0.2
"""Keypoints that must agree: so many, and so many of those that match."""
NEAR, BENT = 2.0, 5.0
"""Largest errors of a scale and shift in pixels of the candidate's input: the median over the keypoints that agree, and
the largest distance from the map that they agree on, at the corners of the box around them."""
OVERLAP = 0.7
"""Least area that both show, as a share of the area that either shows."""
CELLS, TEXTURED = 4, 10
"""The query is cut into this many cells in each direction; those in which both have this many keypoints count."""
COVERED = 0.6
"""Least share of these cells in which keypoints agree."""


def near_identical(query: QueryKeypoints, candidate: CompactKeypoints) -> bool:
    """Return whether a picture is near-identical to another. False for pictures with hardly any keypoints."""
    here = query.keypoints
    found = fit(here, candidate, matches_of(query, candidate))
    if found.map is None or found.inliers < max(FEWEST, SHARE * found.most):
        return False
    agreeing = here.positions[found.matches.query].astype(np.float64)
    there = candidate.positions[found.matches.candidate]
    laid = _Laid.on(agreeing, there)
    if laid.error(agreeing, there) > NEAR or laid.bent(found.map, box_of(agreeing)) > BENT:
        return False
    if laid.overlap(here.frame, candidate.frame) < OVERLAP:
        return False
    return _covered(here.positions, laid.back(candidate.positions), agreeing, here.frame) >= COVERED


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """How a picture lies on another: a scale and a shift for each axis."""

    x: Axis
    y: Axis

    @classmethod
    def on(cls, here: Points, there: Points) -> _Laid:
        """Fit points [n, 2] to their matches, by least squares on those that are not far off."""
        near = np.ones(len(here), np.bool_)
        for _ in range(3):
            x, y = (_line(here[near, axis], there[near, axis]) for axis in (0, 1))
            laid = cls(x=x, y=y)
            apart = _distances(laid.forth(here), there)
            near = apart <= max(2.5 * float(np.median(apart)), NEAR)
        return laid

    def error(self, here: Points, there: Points) -> float:
        """Return the median distance between points [n, 2] and their matches."""
        return float(np.median(_distances(self.forth(here), there)))

    def bent(self, map: Points, corners: Points) -> float:
        """Return how far a map [3, 3] takes one of the corners [4, 2] elsewhere."""
        mapped = corners @ map[:, :2].T + map[:, 2]
        return float(_distances(mapped[:, :2] / mapped[:, 2:], self.forth(corners)).max())

    def overlap(self, frame: tuple[int, int], other: tuple[int, int]) -> float:
        """Return the area that both pictures show by the area that either shows; 0 if one is mirrored."""
        shown, both = 1.0, 1.0
        for (scale, shift), side, room in zip((self.x, self.y), frame, other, strict=True):
            shown *= max(0.0, scale * side)
            both *= max(0.0, min(scale * side + shift, room) - max(shift, 0.0))
        return both / (shown + other[0] * other[1] - both)

    def forth(self, here: Points) -> Points:
        """Return points of the query [n, 2] in pixels of the candidate."""
        return here * (self.x[0], self.y[0]) + (self.x[1], self.y[1])

    def back(self, there: Points) -> Points:
        """Return points of the candidate [n, 2] in pixels of the query."""
        return (there - (self.x[1], self.y[1])) / (self.x[0], self.y[0])


def _line(here: Points, there: Points) -> Axis:
    """Return scale and shift of the least-squares line through coordinates [n]."""
    middle, spread = float(here.mean(dtype=np.float64)), float(np.var(here, dtype=np.float64))
    scale = float(np.mean((here - middle) * there, dtype=np.float64)) / max(spread, 1e-9)
    return scale, float(there.mean(dtype=np.float64)) - scale * middle


def _distances(points: Points, others: Points) -> Points:
    return np.asarray(np.linalg.norm(points - others, axis=1))


def _covered(here: Points, there: Points, agreeing: Points, frame: tuple[int, int]) -> float:
    """Return in which share of the cells where both pictures have keypoints some agree; 1 without such a cell.

    All points are [n, 2], in pixels of the query, whose width and height are `frame`.
    """
    ours, theirs, both = (_counts(points, frame) for points in (here, there, agreeing))
    textured = np.minimum(ours, theirs) >= TEXTURED
    return float((both[textured] > 0).mean()) if textured.any() else 1.0


def _counts(points: Points, frame: tuple[int, int]) -> NDArray[np.int64]:
    """Return how many points lie in each cell, [CELLS * CELLS]."""
    cells = np.floor(points * (CELLS / np.array(frame))).astype(np.int64)
    inside = ((cells >= 0) & (cells < CELLS)).all(axis=1)
    return np.bincount(cells[inside] @ np.array([1, CELLS]), minlength=CELLS * CELLS)
