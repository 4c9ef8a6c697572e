from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from landseer.ensemble.search.ranking import Ranking, first_ranking
from landseer.ensemble.verify.evidence import Evidence
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.space import Space
from landseer.ops.evaluate.verified_hits import Asked, Verifying
from landseer.ops.research.sweep_default import WAYS, searched

NOWHERE = np.empty((0, 2), np.float32)
SURE = Evidence(inliers=40, log_odds=9.0, outline=NOWHERE, here=NOWHERE, there=NOWHERE)


def ranking(key: int, evidence: Evidence | None = None) -> Ranking:
    """A ranking of one hit."""
    one = first_ranking(np.array([key], np.int64), np.ones(1, np.float32))
    return replace(one, evidence=np.array([evidence], np.object_))


class Steps:
    """Stands in for `Verifying`: of two queries only the second has a verified hit. Keys tell what was done."""

    def __init__(self) -> None:
        self.expansions = 0

    def once(
        self, asked: Asked, *, expanded: Callable[[Space], Sequence[Any]] | None = None, by_own: bool = False
    ) -> list[Ranking]:
        """1 and 2 without expansion, 10 with one, 20 where candidates are near the query itself."""
        if expanded is None:
            return [ranking(1), ranking(2, SURE)]
        self.expansions += 1
        return [ranking(20 if by_own else 10)] * 2

    def again(self, asked: Asked, first: Sequence[Ranking], count: int, *, nearest: int = 0) -> list[Ranking]:
        """Add 100 where verified hits may expand, and the neighbours of LAttQE."""
        return [replace(one, keys=one.keys + 100 * bool(count) + nearest) for one in first]


def test_each_way_searches_as_it_says() -> None:
    vectors = np.eye(4, dtype=np.float32)
    space = Space(
        queries=vectors[:2], database=Database(vectors=vectors), own=[None] * 2, lattqe=lambda query, near: query
    )
    steps = Steps()
    found = searched(cast(Verifying, steps), Asked(block=space, words=(), known=()), space)
    assert {way.name: [int(one.keys[0]) for one in rankings] for way, rankings in found.items()} == {
        "none": [1, 2],
        "verified": [101, 102],
        "verified, on lattqe:64": [165, 166],
        "lattqe:64": [10, 10],
        "lattqe:8": [10, 10],
        "rank-curve:8": [20, 20],
        "lattqe:64, near the query itself": [20, 20],
        "rank-curve:8, near the expanded query": [10, 10],
        "lattqe:64, then verified": [110, 110],
        "verified; without a verified hit lattqe:64": [110, 102],
    }
    assert steps.expansions == 5 and len(found) == len(WAYS), "each expansion is searched once"
