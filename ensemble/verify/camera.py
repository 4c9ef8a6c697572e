"""The loop that tells whether a camera can make a homography, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.verify.affine import FLATTEST, LARGEST, SMALLEST

Floats = NDArray[np.float64]


class Plausible(Protocol):
    """Tells whether a camera can make a homography."""

    def __call__(self, map: Floats, corners: Floats) -> bool:
        """Return whether a map [3, 3] keeps a box convex, not mirrored, in front, and not too distorted.

        corners: [4, 2], clockwise. At a corner scales may be twice as large, small or different as in an affine map.
        """


@cache
def plausible() -> Plausible:
    """Return the loop."""

    def loop(map: Any, corners: Any) -> Any:
        across, down = np.empty(4), np.empty(4)
        for corner in range(4):
            x, y = corners[corner]
            depth = map[2, 0] * x + map[2, 1] * y + map[2, 2]
            if depth <= 1e-6:
                return False
            u, v = map[0, 0] * x + map[0, 1] * y + map[0, 2], map[1, 0] * x + map[1, 1] * y + map[1, 2]
            u, v = u / depth, v / depth
            across[corner], down[corner] = u, v
            # The Jacobian, and its scales as in `affine`.
            a, b = (map[0, 0] - u * map[2, 0]) / depth, (map[0, 1] - u * map[2, 1]) / depth
            c, d = (map[1, 0] - v * map[2, 0]) / depth, (map[1, 1] - v * map[2, 1]) / depth
            area, squares = a * d - b * c, a * a + b * b + c * c + d * d
            root = np.sqrt(max(squares * squares - 4.0 * area * area, 0.0))
            long, short = np.sqrt((squares + root) / 2.0), np.sqrt(max((squares - root) / 2.0, 0.0))
            if area <= 0.0 or long > 2.0 * LARGEST or 2.0 * short < SMALLEST or long > 2.0 * FLATTEST * short:
                return False
        for corner in range(4):
            here, there, after = corner, (corner + 1) % 4, (corner + 2) % 4
            right, below = across[there] - across[here], down[there] - down[here]
            if right * (down[after] - down[there]) <= below * (across[after] - across[there]):
                return False
        return True

    made: Plausible = compiled(loop, "boolean(float64[:, ::1], float64[:, ::1])")
    return made
