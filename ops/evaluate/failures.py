"""The worst queries, and what was found instead of the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from landseer.ensemble.evaluation import PROTOCOLS, Ids, Protocol, Truth

COUNT = 12
"""Worst queries kept for each row."""
WRONG = 3
"""Wrong hits kept for each query."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One query. Ranks count from 1, junk removed."""

    query: int
    """Its place among the queries."""
    ap: float
    wrong: Sequence[tuple[int, int]]
    """Rank and row of the first wrong hits."""
    right: tuple[int, int] | None
    """Rank and row of the first right hit; None if none was found."""
    positives: int


def failures(
    rankings: Sequence[Ids], truths: Sequence[Truth], aps: npt.NDArray[np.float64], *, protocol: Protocol
) -> list[Failure]:
    """Return the queries with the lowest average precision, worst first; perfect queries are left out. aps: [Q]."""
    order = np.argsort(aps, kind="stable")
    worst = [int(place) for place in order if aps[place] < 1.0][:COUNT]
    return [_failure(place, rankings[place], truths[place], float(aps[place]), protocol) for place in worst]


def _failure(place: int, ranking: Ids, truth: Truth, ap: float, protocol: Protocol) -> Failure:
    positives, junk = (
        np.concatenate([np.asarray(getattr(truth, part), np.int64) for part in parts]) for parts in PROTOCOLS[protocol]
    )
    kept = ranking[~np.isin(ranking, junk)]
    right = np.isin(kept, positives)
    hits, misses = np.flatnonzero(right), np.flatnonzero(~right)[:WRONG]
    return Failure(
        query=place,
        ap=ap,
        wrong=[(int(rank) + 1, int(kept[rank])) for rank in misses],
        right=(int(hits[0]) + 1, int(kept[hits[0]])) if len(hits) else None,
        positives=len(positives),
    )
