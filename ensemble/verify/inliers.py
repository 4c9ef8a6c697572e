"""The loop that finds the inliers of a map, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

FINE = 8.0
"""Largest error of an inlier, pixels of the candidate."""
BIT = 0.05
"""Pixels of error that weigh as much as a differing bit, where a keypoint must choose among matches."""


class Inside(Protocol):
    """Finds the matches that fit a map."""

    def __call__(
        self,
        matches: tuple[Places, Places, Places],
        points: Floats,
        map: Floats,
        alike: Mask,
        found: tuple[Floats, Mask],
    ) -> int:
        """Write the error of each match, [m], and which are inliers, [m], to `found`; return the number of inliers.

        No keypoint is in two inliers: of the matches of a keypoint of the query the cheapest stays, then likewise for
        the candidate; of equally cheap ones the first. matches: rows of the query and of the candidate and differing
        bits, [m] each; points: as of `Proposals`; map: [3, 3]; alike: [m], the matches of a like size. The error of the
        others, and behind the camera, is infinite.
        """


@cache
def inside() -> Inside:
    """Return the loop."""

    def loop(matches: Any, points: Any, map: Any, alike: Any, found: Any) -> Any:
        errors, inliers = found
        for place in range(len(alike)):
            x, y = points[0, place], points[1, place]
            depth = map[2, 0] * x + map[2, 1] * y + map[2, 2]
            errors[place] = np.inf
            if alike[place] and depth > 1e-6:
                across = (map[0, 0] * x + map[0, 1] * y + map[0, 2]) / depth - points[2, place]
                down = (map[1, 0] * x + map[1, 1] * y + map[1, 2]) / depth - points[3, place]
                errors[place] = np.sqrt(across * across + down * down)
            inliers[place] = errors[place] <= FINE
        costs = errors + BIT * matches[2]
        for rows in matches[:2]:
            places = np.flatnonzero(inliers)
            # Few enough to compare every two.
            for place in places:
                for other in places:
                    if rows[other] == rows[place] and (costs[other], other) < (costs[place], place):
                        inliers[place] = False
        return inliers.sum()

    rows, found = "Tuple((int64[::1], int64[::1], int64[::1]))", "Tuple((float64[::1], boolean[::1]))"
    made: Inside = compiled(loop, f"int64({rows}, float64[:, ::1], float64[:, ::1], boolean[::1], {found})")
    return made
