"""The maps that many matches agree with: fast spatial matching (Philbin et al. 2007).

A match has a place and a size in both pictures, and keypoints an orientation, so each match proposes a map: a
similarity, or for patches a scale and a shift.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Places = NDArray[np.int64]

Oriented: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Positions [n, 2], sizes [n] and angles [n] of features."""
Rows: TypeAlias = tuple[Places, Places, Places]
"""Rows of the query's and of the candidate's features that match, and their differing bits, [m] each."""


class Proposals(NamedTuple):
    """The maps of single matches that most matches agree with."""

    considered: Places
    """[3, k], the matches that were considered, in their order, as of `Rows`; k = 0 if there are too few."""
    points: Floats
    """[4, k]: x, y in the query, x, y in the candidate."""
    sizes: Floats
    """[k], the candidate's by the query's."""
    agreeing: Masks
    """[maps, k], which matches agree with each map, best first, without near repetitions."""
    most: int
    """How many of all matches no feature can be in twice, at most."""


class Propose(Protocol):
    """Finds them."""

    def __call__(
        self, matches: Rows, here: Oriented, there: Oriented, errors: tuple[float, float], limits: tuple[int, int]
    ) -> tuple[Places, Floats, Floats, Masks, int]:
        """Return the fields of `Proposals`.

        here, there: of the query and of the candidate. errors: the largest of a match that agrees, in pixels of the
        candidate, and the largest factor between its scale and the map's. limits: matches to consider, those with the
        fewest differing bits, and maps to return.
        """


@cache
def propose() -> Propose:
    """Return the loop, compiled when it is first asked for."""
    from landseer.ensemble.verify.proposal_loop import loop

    rows, features = "(int64[::1], int64[::1], int64[::1])", "(float32[:, ::1], float32[::1], float32[::1])"
    limits = "UniTuple(float64, 2), UniTuple(int64, 2)"
    found = "Tuple((int64[:, ::1], float64[:, ::1], float64[::1], boolean[:, ::1], int64))"
    made: Propose = compiled(loop, f"{found}(Tuple({rows}), Tuple({features}), Tuple({features}), {limits})")
    return made


def proposed(
    matches: Rows, here: Oriented, there: Oriented, *, errors: tuple[float, float], limits: tuple[int, int]
) -> Proposals:
    """Return the maps that most matches agree with. The arguments are those of `Propose`."""
    return Proposals(*propose()(matches, here, there, errors, limits))
