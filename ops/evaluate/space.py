"""The vectors that are ranked, and how they are searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.database import Change, Database
from landseer.ops.evaluate.picture_arrays import NO_ARRAYS, PictureArrays
from landseer.ops.evaluate.ranked import Floats, Ranked

BLOCK = 256
"""Queries ranked at a time: a gigabyte of scores with a million references."""
FEW = 32
"""Queries ranked at a time if each takes long, or has its own changes: 5 MB for a thousand rows of 1,280."""


class Expander(Protocol):
    """LAttQE in process."""

    def __call__(self, query: Floats, neighbours: Floats) -> Floats:
        """Return the expanded query [D] of a query [D] and its neighbours [k, D]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Queries and references, all of unit norm."""

    queries: Floats
    """[Q, D]."""
    database: Database
    own: Sequence[int | None]
    """The row of each query among the references, which it never finds; None if it is not there."""
    lattqe: Expander
    trained: bool = False
    """Whether LAttQE is: the default search then expands by it, too."""
    changes: Sequence[Change] = ()
    """How the references differ for each query; only for blocks, since it may take much memory."""
    first: int = 0
    """Number of the first query of a block."""
    arrays: PictureArrays = NO_ARRAYS
    """The other arrays of the pictures."""

    def blocks(self, size: int = BLOCK) -> Iterator[Space]:
        """Yield blocks of at most `size` queries."""
        step = size if self.database.changes is None else min(size, FEW)
        for start in range(0, len(self.queries), step):
            own = self.own[start : start + step]
            changes = [self.database.without(row) for row in own]
            queries = self.queries[start : start + step]
            yield replace(self, queries=queries, own=own, changes=changes, first=self.first + start)

    def taken(self, place: int, rows: Ids) -> Floats:
        """Return the vectors of rows [n] with the changes of query `place` of a block, [n, D]."""
        return self.changes[place].over(self.database.vectors[rows], rows)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a space is searched."""

    rank: Callable[[Space], Sequence[Ranked]]
    """Ranks each query of a block."""
    index_bytes: float
    """Size of the index per reference."""
    block: int = BLOCK
    """Queries at a time."""
