"""What is ranked, and how it is searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.database import Change, Database
from landseer.ops.evaluate.picture_arrays import NO_ARRAYS, PictureArrays
from landseer.ops.evaluate.ranked import Floats, Ranked

BLOCK = 256
"""Queries ranked at a time: of a million references, a gigabyte."""
FEW = 32
"""Queries ranked at a time where each is a while's work, or changes what is ranked: a thousand rows of 1,280, 5 MB."""


class Expander(Protocol):
    """LAttQE, in process."""

    def __call__(self, query: Floats, neighbours: Floats) -> Floats:
        """Return the expanded query [D] of a query [D] and its neighbours [k, D]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """What is ranked: references for queries, all of unit norm."""

    queries: Floats
    """[Q, D]."""
    database: Database
    own: Sequence[int | None]
    """Each query's own row of the references, which it never finds."""
    lattqe: Expander
    changes: Sequence[Change] = ()
    """For each query what the references are without it; for blocks alone, since it may be much."""
    first: int = 0
    """Of a block, the number of its first query."""
    arrays: PictureArrays = NO_ARRAYS
    """What is known of the pictures beside their descriptors."""

    def blocks(self, size: int = BLOCK) -> Iterator[Space]:
        """Yield it by some queries at a time."""
        step = size if self.database.changes is None else min(size, FEW)
        for start in range(0, len(self.queries), step):
            own = self.own[start : start + step]
            changes = [self.database.without(row) for row in own]
            queries = self.queries[start : start + step]
            yield replace(self, queries=queries, own=own, changes=changes, first=self.first + start)

    def taken(self, place: int, rows: Ids) -> Floats:
        """Return the references of rows [n] as query `place` of a block sees them, [n, D]."""
        return self.changes[place].over(self.database.vectors[rows], rows)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a space is searched."""

    rank: Callable[[Space], Sequence[Ranked]]
    """From a block to the ranking of each of its queries."""
    index_bytes: float
    """Of a reference in the index that is searched."""
    block: int = BLOCK
    """Queries at a time."""
