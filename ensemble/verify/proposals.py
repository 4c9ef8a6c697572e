"""The loop that finds the maps that many matches agree with, compiled when it is first asked for.

A match has a place and a size in both pictures, and keypoints an orientation, so each match proposes a map: a
similarity, or for patches a scale and a shift (fast spatial matching, Philbin et al. 2007).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.verify.geometry import WHOLE, Pairs

Masks = NDArray[np.bool_]

FEWEST = 3
"""Matches that determine an affine map, and the fewest that count."""
LOOKED_AT = 40
"""Proposals looked at, best first."""
TURN = 0.77
"""Least cosine of the angle between a match and the map that it fits: 40 degrees."""


class Propose(Protocol):
    """Finds the maps of single matches that most matches agree with."""

    def __call__(self, pairs: Pairs, coarse: float, larger: float, agreeing: Masks) -> int:
        """Write which matches agree with the best maps, [most, m], without near repetitions; return their number.

        coarse: largest error of a match that agrees, pixels of the candidate; larger: largest factor between its scale
        and the map's.
        """


@cache
def propose() -> Propose:
    """Return the loop."""

    def loop(pairs: Any, coarse: Any, larger: Any, agreeing: Any) -> Any:
        points, sizes, turns, shares = pairs
        x, y, u, v = points
        cosines, sines = turns
        agree = np.empty((len(sizes), len(sizes)), np.bool_)
        scores = np.zeros(len(sizes), np.int64)
        for row in range(len(sizes)):
            size, cosine, sine = sizes[row], cosines[row], sines[row]
            for other in range(len(sizes)):
                right, below = size * (x[other] - x[row]), size * (y[other] - y[row])
                across = u[row] + cosine * right - sine * below - u[other]
                down = v[row] + sine * right + cosine * below - v[other]
                near = across * across + down * down <= coarse * coarse
                alike = (sizes[other] <= larger * size) & (sizes[other] * larger >= size)
                turned = cosine * cosines[other] + sine * sines[other] >= TURN
                agree[row, other] = near & alike & turned
                scores[row] += shares[other] if near & alike & turned else 0
        found = 0
        for _ in range(min(LOOKED_AT, len(sizes))):
            best = scores.argmax()
            if found == len(agreeing) or scores[best] < FEWEST * WHOLE:
                break
            scores[best] = 0
            most = 0
            for before in range(found):
                most = max(most, (agree[best] & agreeing[before]).sum())
            if most <= 0.8 * agree[best].sum():
                agreeing[found] = agree[best]
                found += 1
        return found

    pairs = "Tuple((float64[:, ::1], float64[::1], float64[:, ::1], int64[::1]))"
    made: Propose = compiled(loop, f"int64({pairs}, float64, float64, boolean[:, ::1])")
    return made
