"""The ways to rank that an evaluation compares.

A method is a function from what is ranked (`Space`) to rankings, and a line in `RANKERS`. A database-side part is none
of them: it changes what is ranked (`database.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ensemble.expansion.diffusion import QUERY_NEIGHBOURS, Graph, diffuse
from landseer.ensemble.expansion.dqe import NEGATIVES
from landseer.ensemble.expansion.methods import DEFAULTS, LATTQE, classical
from landseer.ensemble.expansion.recipe import Recipe
from landseer.ensemble.expansion.weights import ALPHA
from landseer.ops.evaluate.database import Change, Database

NONE, DIFFUSION = "none", "diffusion"
BLOCK = 256
"""Queries ranked at a time: of a million references, a gigabyte."""
FEW = 32
"""Queries ranked at a time where each is a while's work, or changes what is ranked: a thousand rows of 1,280, 5 MB."""
DATABASE_NAMES: Mapping[str, str] = {
    "aqe": "adba",
    "aqewd": "adbawd",
    "aqewd-dir": "adbawd-dir",
    "alphaqe": "alphadba",
    "dqe": "ddba",
    LATTQE: "lattdba",
}
"""What the papers call database-side augmentation by a method; `landseer augment --method` takes the method's name."""

Floats = NDArray[np.float32]


class Expander(Protocol):
    """LAttQE, in process."""

    def __call__(self, query: Floats, neighbours: Floats) -> Floats:
        """Return the expanded query [D] of a query [D] and its neighbours [k, D]."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table."""

    name: str
    """What ranks: a key of `RANKERS`."""
    neighbours: int = 0
    """Of the query's expansion, or of each reference in the graph of diffusion."""
    alpha: float = ALPHA
    query_neighbours: int = QUERY_NEIGHBOURS
    """Of diffusion: where it starts."""
    database: Recipe | None = None
    """How the references are augmented before."""

    def __str__(self) -> str:
        """As it is written on the command line."""
        extra = {"alphaqe": f":{self.alpha:g}", DIFFUSION: f":{self.query_neighbours}"}.get(self.name, "")
        return self._with_database(NONE if self.name == NONE else f"{self.name}:{self.neighbours}{extra}")

    @property
    def family(self) -> str:
        """What it is called whatever the neighbours of its queries are."""
        return self._with_database(f"alphaqe, alpha {self.alpha:g}" if self.name == "alphaqe" else self.name)

    def _with_database(self, ranking: str) -> str:
        if self.database is None:
            return ranking
        augmenting = str(self.database).replace(self.database.method, DATABASE_NAMES[self.database.method], 1)
        return augmenting if self.name == NONE else f"{augmenting}+{ranking}"


NO_EXPANSION = Method(name=NONE)


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

    def blocks(self, size: int = BLOCK) -> Iterator[Space]:
        """Yield it by some queries at a time."""
        step = size if self.database.changes is None else min(size, FEW)
        for start in range(0, len(self.queries), step):
            own = self.own[start : start + step]
            changes = [self.database.without(row) for row in own]
            yield replace(self, queries=self.queries[start : start + step], own=own, changes=changes)

    def taken(self, place: int, rows: Ids) -> Floats:
        """Return the references of rows [n] as query `place` of a block sees them, [n, D]."""
        return self.changes[place].over(self.database.vectors[rows], rows)


Ranker = Callable[[Method, Space], Iterator[Ids]]


def rankings(
    method: Method, queries: Floats, references: Floats | Database, own: Sequence[int | None], *, lattqe: Expander
) -> Iterator[Ids]:
    """Yield for each query all rows of the references, best first, without the query's own.

    queries: [Q, D]; references: [N, D], both of unit norm. Of equal scores the earlier row leads. ValueError if the
    references are not augmented as the method says.
    """
    database = references if isinstance(references, Database) else Database(vectors=references)
    if database.recipe != method.database:
        raise ValueError(f"got references augmented by {database.recipe} for {method}; expected {method.database}")
    return RANKERS[method.name](method, Space(queries=queries, database=database, own=own, lattqe=lattqe))


def _plain(method: Method, space: Space) -> Iterator[Ids]:
    """Rank by the cosine."""
    for block in space.blocks():
        yield from _ranked(block)


def _expanding(method: Method, space: Space) -> Iterator[Ids]:
    """Rank, expand each query by its nearest, and rank again."""
    for block in space.blocks():
        orders = enumerate(_ranked(block))
        expanded = np.stack([_expanded(method, block, place, order) for place, order in orders])
        yield from _ranked(replace(block, queries=expanded))


def _expanded(method: Method, block: Space, place: int, order: Ids) -> Floats:
    query: Floats = block.queries[place]
    neighbours = block.taken(place, order[: method.neighbours])
    if not len(neighbours):
        return query
    if method.name == LATTQE:
        return block.lattqe(query, neighbours)
    lowest = block.taken(place, order[-NEGATIVES:])
    return classical(method.name, query, neighbours, alpha=method.alpha, lowest=lowest)


def _diffusing(method: Method, space: Space) -> Iterator[Ids]:
    """Rank by diffusion over the graph of the references."""
    graph = Graph.over(space.database.vectors, neighbours=method.neighbours)
    for block in space.blocks(FEW):
        scores = diffuse(block.queries, graph, own=block.own, query_neighbours=method.query_neighbours)
        yield from _sorted(scores, block.own)


def _ranked(block: Space) -> list[Ids]:
    scores = np.asarray(block.queries @ block.database.vectors.T)
    for line, query, change in zip(scores, block.queries, block.changes, strict=True):
        line[change.rows] = change.vectors @ query
    return _sorted(scores, block.own)


def _sorted(scores: Floats, own: Sequence[int | None]) -> list[Ids]:
    orders = np.argsort(-scores, axis=1, kind="stable")
    return [order if row is None else order[order != row] for order, row in zip(orders, own, strict=True)]


RANKERS: Mapping[str, Ranker] = {NONE: _plain, **dict.fromkeys(DEFAULTS, _expanding), DIFFUSION: _diffusing}
"""By the method's name."""
