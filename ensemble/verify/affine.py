"""The loop that fits an affine map to matches, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 3
"""Matches that determine an affine map, and the fewest that count."""
FLATTEST, LARGEST, SMALLEST = 4.5, 12.0, 0.08
"""Largest ratio of the scales of an affine map, largest and smallest scale."""


class Refine(Protocol):
    """Refines an affine map."""

    def __call__(
        self, pairs: tuple[Floats, Floats], limits: Floats, larger: float, masks: tuple[Mask, Mask], map: Floats
    ) -> int:
        """Fit a map to the inliers, and find those that fit it, for each of the limits; return how often it was done.

        Stops where the inliers determine no map that a camera makes, and leaves what it had. pairs: points and sizes,
        as of `Proposals`; limits: largest error of an inlier each time, pixels of the candidate; larger: largest factor
        between the size of a match and the median of the first inliers; masks: the inliers [m], which are overwritten,
        and [m], receives which matches have such a size; map: [2, 3], receives the least-squares map.
        """


@cache
def refine() -> Refine:
    """Return the loop."""

    def loop(pairs: Any, limits: Any, larger: Any, masks: Any, map: Any) -> Any:
        points, sizes = pairs
        inliers, alike = masks
        middle = np.median(sizes[inliers])
        alike[:] = (sizes <= larger * middle) & (sizes * larger >= middle)
        for turn in range(len(limits)):
            if inliers.sum() < FEWEST:
                return turn
            # Around the means, which keeps the equations well conditioned.
            x, y, u, v = points[0][inliers], points[1][inliers], points[2][inliers], points[3][inliers]
            x0, y0, u0, v0 = x.mean(), y.mean(), u.mean(), v.mean()
            x, y, u, v = x - x0, y - y0, u - u0, v - v0
            xx, xy, yy = (x * x).sum(), (x * y).sum(), (y * y).sum()
            spread = xx * yy - xy * xy
            if spread <= 1e-6 * (xx + yy) * (xx + yy):
                # They lie on a line.
                return turn
            xu, yu, xv, yv = (x * u).sum(), (y * u).sum(), (x * v).sum(), (y * v).sum()
            a, b = (xu * yy - yu * xy) / spread, (yu * xx - xu * xy) / spread
            c, d = (xv * yy - yv * xy) / spread, (yv * xx - xv * xy) / spread
            # The squares of its largest and smallest scale are half of this sum, plus and minus half of the root.
            area, squares = a * d - b * c, a * a + b * b + c * c + d * d
            root = np.sqrt(max(squares * squares - 4.0 * area * area, 0.0))
            long, short = np.sqrt((squares + root) / 2.0), np.sqrt(max((squares - root) / 2.0, 0.0))
            if area <= 0.0 or long > LARGEST or short < SMALLEST or long > FLATTEST * short:
                return turn
            map[0, 0], map[0, 1], map[0, 2] = a, b, u0 - a * x0 - b * y0
            map[1, 0], map[1, 1], map[1, 2] = c, d, v0 - c * x0 - d * y0
            across = a * points[0] + b * points[1] + map[0, 2] - points[2]
            down = c * points[0] + d * points[1] + map[1, 2] - points[3]
            inliers[:] = alike & (across * across + down * down <= limits[turn] * limits[turn])
        return len(limits)

    pairs, masks = "Tuple((float64[:, ::1], float64[::1]))", "Tuple((boolean[::1], boolean[::1]))"
    made: Refine = compiled(loop, f"int64({pairs}, float64[::1], float64, {masks}, float64[:, ::1])")
    return made
