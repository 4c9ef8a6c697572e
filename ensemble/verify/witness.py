"""Witnesses: verified hits by which others are recognised.

A photograph may share no keypoints with the query, and many with another photograph of the same thing that does (Chum
et al. 2007, transitive closure expansion). Only the part of the witness that shows what the query shows counts, or what
merely stands beside the thing would be taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.verify.evidence import NOTHING, Evidence, Points, Via, log_odds, mapped, shares
from landseer.ensemble.verify.fast_spatial import Fit, box_of, fit
from landseer.ensemble.verify.matching import matches_of

Floats = NDArray[np.float64]
FLAT = 1e-9
"""Least determinant of a map that can be inverted, between shares of width and height."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Witness:
    """A verified hit, with its keypoints where it shows what the query shows."""

    key: int
    evidence: Evidence
    """Of the query with it; with an outline."""
    keypoints: QueryKeypoints

    @classmethod
    def of(cls, key: int, evidence: Evidence, stored: CompactKeypoints) -> Witness:
        """Return the witness under a key. stored: all of its keypoints."""
        there = stored.take(within(evidence.outline, shares(stored.positions, stored.frame)))
        return cls(key=key, evidence=evidence, keypoints=QueryKeypoints.of_indexed(there))

    def via(self, candidate: CompactKeypoints) -> Via:
        """Return how sure it is that a candidate shows the same thing, by way of this hit."""
        found = fit(self.keypoints.keypoints, candidate, matches_of(self.keypoints, candidate))
        return Via(
            key=self.key,
            inliers=found.inliers,
            log_odds=both(self.evidence.log_odds, log_odds(found.inliers, found.most)),
            outline=self._outline(found, candidate.frame),
        )

    @cached_property
    def _map(self) -> Floats:
        """[3, 3], from shares of the query to shares of this picture."""
        return _from_corners(box_of(self.evidence.here.astype(np.float64)), self.evidence.outline.astype(np.float64))

    def _outline(self, found: Fit, frame: tuple[int, int]) -> Points:
        """Return the box in the query around what agrees, mapped into the witness and from there into the candidate."""
        if found.map is None or abs(np.linalg.det(self._map)) < FLAT:
            return NOTHING
        here, map = self.keypoints.keypoints, self._map
        agreeing = shares(here.positions[found.matches.query], here.frame).astype(np.float64)
        corners = mapped(map, box_of(mapped(np.linalg.inv(map), agreeing)))
        return shares(mapped(found.map, corners * here.frame - 0.5), frame)


def surest_via(witnesses: Sequence[Witness], candidate: CompactKeypoints) -> Via | None:
    """Return the surest way to a candidate; None without witnesses."""
    return max((one.via(candidate) for one in witnesses), key=lambda via: via.log_odds, default=None)


def both(first: float, second: float) -> float:
    """Return the log odds of the product of two probabilities, given as log odds."""
    return -float(np.logaddexp.reduce([-first, -second, -first - second]))


def within(corners: Points, points: Points) -> NDArray[np.bool_]:
    """Return which of the points [n, 2] lie in the convex quadrilateral of four corners [4, 2], or on its edge."""
    sides = np.roll(corners, -1, axis=0) - corners
    away = points[:, None] - corners
    turns = sides[:, 0] * away[..., 1] - sides[:, 1] * away[..., 0]
    return np.asarray((turns >= 0).all(axis=1) | (turns <= 0).all(axis=1))


def _from_corners(here: Floats, there: Floats) -> Floats:
    """Return the homography [3, 3] that maps four corners [4, 2] to four others; zeros if there is none."""
    (x, y), (u, v), one, none = here.T, there.T, np.ones(4), np.zeros((4, 3))
    rows = np.column_stack([x, y, one])
    across = np.column_stack([rows, none, -u * x, -u * y])
    down = np.column_stack([none, rows, -v * x, -v * y])
    try:
        found = np.linalg.solve(np.concatenate([across, down]), np.concatenate([u, v]))
    except np.linalg.LinAlgError:
        return np.zeros((3, 3))
    return np.append(found, 1.0).reshape(3, 3)
