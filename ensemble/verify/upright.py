"""One affine map from a query's patches to a candidate's: fast spatial matching (Philbin et al. 2007), compiled.

Patches have a size and no orientation, so a match proposes a scale and a shift. The one that most matches agree with is
refined on them to an affine map. There is no homography: things are rarely flat where patches are needed, and patches
lie on a grid, so that a homography fits what is not there. Maps that no camera makes are rejected, as for keypoints.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.fast_spatial import FEWEST, FLATTEST, LARGEST, SMALLEST, Fit
from landseer.ensemble.verify.matching import Matches

COARSE, FINE = 40.0, 16.0
"""Largest error of an inlier in pixels of the candidate: of a scale and shift from one match, and of the affine map."""
LARGER = 2.3
"""Largest factor between the scale of a match and that of the map it fits; 1.5 times that for the affine map."""

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Propose(Protocol):
    """Finds the scale and shift of one match that most matches agree with."""

    def __call__(self, points: Points, steps: Points, inliers: Mask) -> None:
        """Write which matches agree, [m].

        points: [4, m]: x, y in the query, x, y in the candidate; steps: [m], the candidate's size by the query's.
        """


class Refine(Protocol):
    """Fits an affine map."""

    def __call__(self, points: Points, inliers: Mask, alike: Mask, limit: float, map: Points) -> bool:
        """Write the least-squares map [2, 3] of the inliers, and which matches fit it; False without a map.

        points: as of `Propose`; alike: the matches of a like scale, [m]; limit: largest error of an inlier, pixels.
        """


def fit_upright(query: Patches, candidate: Patches, matches: Matches) -> Fit:
    """Fit a map to mutual matches of patches; without inliers if there is none."""
    nothing = Fit(matches=matches.take(np.empty(0, np.int64)), map=None, most=len(matches))
    if len(matches) < FEWEST:
        return nothing
    here, there = query.positions[matches.query], candidate.positions[matches.candidate]
    points = np.ascontiguousarray(np.concatenate([here, there], axis=1).T, np.float64)
    steps = candidate.sizes[matches.candidate].astype(np.float64) / query.sizes[matches.query]
    inliers, map = np.zeros(len(matches), np.bool_), np.zeros((2, 3))
    propose()(points, steps, inliers)
    factors = steps / np.median(steps[inliers])
    alike = (factors <= 1.5 * LARGER) & (1.5 * LARGER * factors >= 1.0)
    for limit in (COARSE, COARSE, FINE, FINE):
        if not refine()(points, inliers, alike, limit, map):
            return nothing
    if np.count_nonzero(inliers) < FEWEST:
        return nothing
    return Fit(matches=matches.take(inliers), map=np.vstack([map, [0.0, 0.0, 1.0]]), most=len(matches))


@cache
def propose() -> Propose:
    """Return the loop."""

    def loop(points: Any, steps: Any, inliers: Any) -> None:
        x, y, u, v = points
        most, best = 0, 0
        for turn in range(len(steps) + 1):
            # Once more for the best, to tell which agree.
            row = turn if turn < len(steps) else best
            agreeing = 0
            for other in range(len(steps)):
                ratio = steps[other] / steps[row]
                across = u[row] + steps[row] * (x[other] - x[row]) - u[other]
                down = v[row] + steps[row] * (y[other] - y[row]) - v[other]
                near = across * across + down * down <= COARSE * COARSE
                inliers[other] = near and ratio <= LARGER and ratio * LARGER >= 1.0
                agreeing += inliers[other]
            if agreeing > most:
                most, best = agreeing, row

    made: Propose = compiled(loop, "void(float64[:, ::1], float64[::1], boolean[::1])")
    return made


@cache
def refine() -> Refine:
    """Return the loop."""

    def loop(points: Any, inliers: Any, alike: Any, limit: Any, map: Any) -> Any:
        if inliers.sum() < FEWEST:
            return False
        # Around the means, which keeps the equations well conditioned.
        x, y, u, v = points[0][inliers], points[1][inliers], points[2][inliers], points[3][inliers]
        x0, y0, u0, v0 = x.mean(), y.mean(), u.mean(), v.mean()
        x, y, u, v = x - x0, y - y0, u - u0, v - v0
        xx, xy, yy = (x * x).sum(), (x * y).sum(), (y * y).sum()
        spread = xx * yy - xy * xy
        if spread <= 1e-6 * (xx + yy) * (xx + yy):
            # They lie on a line.
            return False
        a, b = ((x * u).sum() * yy - (y * u).sum() * xy) / spread, ((y * u).sum() * xx - (x * u).sum() * xy) / spread
        c, d = ((x * v).sum() * yy - (y * v).sum() * xy) / spread, ((y * v).sum() * xx - (x * v).sum() * xy) / spread
        # The squares of its largest and smallest scale are half of this sum, plus and minus half of the root.
        area, squares = a * d - b * c, a * a + b * b + c * c + d * d
        root = np.sqrt(max(squares * squares - 4.0 * area * area, 0.0))
        long, short = np.sqrt((squares + root) / 2.0), np.sqrt(max((squares - root) / 2.0, 0.0))
        if area <= 0.0 or long > LARGEST or short < SMALLEST or long > FLATTEST * short:
            return False
        map[0, 0], map[0, 1], map[0, 2] = a, b, u0 - a * x0 - b * y0
        map[1, 0], map[1, 1], map[1, 2] = c, d, v0 - c * x0 - d * y0
        across = a * points[0] + b * points[1] + map[0, 2] - points[2]
        down = c * points[0] + d * points[1] + map[1, 2] - points[3]
        inliers[:] = alike & (across * across + down * down <= limit * limit)
        return True

    made: Refine = compiled(loop, "boolean(float64[:, ::1], boolean[::1], boolean[::1], float64, float64[:, ::1])")
    return made
