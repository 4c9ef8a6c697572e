"""The loop that looks up where matched features are, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

Oriented: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Positions [n, 2], sizes [n] and angles [n] of features."""
Pairs: TypeAlias = tuple[Floats, Floats, Floats, Places]
"""The geometry of m matches.

Points [4, m]: x, y in the query, x, y in the candidate. Sizes [m], the candidate's by the query's. Turns [2, m], cosine
and sine of the angle from the query's orientation to the candidate's. Shares [m], what each counts, at most `WHOLE`.
"""
WHOLE = 720_720
"""What a match counts that shares its features with no other. 1 to 16 divide it, so thirds add up, in any order."""


class Pair(Protocol):
    """Looks up the geometry of matches."""

    def __call__(self, here: Oriented, there: Oriented, rows: tuple[Places, Places], pairs: Pairs) -> None:
        """Write the geometry of matches to `pairs`.

        here, there: of the query and of the candidate; rows: [m] each, the features of both that match.
        """


@cache
def pair() -> Pair:
    """Return the loop."""

    def loop(here: Any, there: Any, rows: Any, pairs: Any) -> None:
        mine, theirs = rows
        points, sizes, turns, shares = pairs
        # How many matches each feature is in.
        many, others = np.zeros(len(here[1]), np.int64), np.zeros(len(there[1]), np.int64)
        for place in range(len(mine)):
            many[mine[place]] += 1
            others[theirs[place]] += 1
        for place in range(len(mine)):
            row, other = mine[place], theirs[place]
            points[0, place], points[1, place] = here[0][row, 0], here[0][row, 1]
            points[2, place], points[3, place] = there[0][other, 0], there[0][other, 1]
            sizes[place] = np.float64(there[1][other]) / np.float64(here[1][row])
            angle = np.float64(there[2][other]) - np.float64(here[2][row])
            turns[0, place], turns[1, place] = np.cos(angle), np.sin(angle)
            shares[place] = WHOLE // max(many[row], others[other])

    oriented = "Tuple((float32[:, ::1], float32[::1], float32[::1]))"
    rows = "Tuple((int64[::1], int64[::1]))"
    pairs = "Tuple((float64[:, ::1], float64[::1], float64[:, ::1], int64[::1]))"
    made: Pair = compiled(loop, f"void({oriented}, {oriented}, {rows}, {pairs})")
    return made


def paired(here: Oriented, there: Oriented, rows: tuple[Places, Places]) -> Pairs:
    """Return the geometry of matches. rows: [m] each, of the query and of the candidate."""
    count = len(rows[0])
    pairs = np.empty((4, count)), np.empty(count), np.empty((2, count)), np.empty(count, np.int64)
    pair()(here, there, rows, pairs)
    return pairs
