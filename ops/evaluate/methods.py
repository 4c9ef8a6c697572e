"""The ways to rank that an evaluation compares, by name.

A method is a function from what is ranked (`Space`) to rankings, and a line in `RANKERS`: one that augments the
references replaces those of the space, one that ranks anew does so behind another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ensemble.expansion.dqe import NEGATIVES
from landseer.ensemble.expansion.methods import DEFAULTS, LATTQE, classical, limits
from landseer.ensemble.expansion.weights import ALPHA
from landseer.ops.processes import OpsError

NONE = "none"
BLOCK = 256
"""Queries ranked at a time: of a million references, a gigabyte."""

Floats = NDArray[np.float32]


class Expander(Protocol):
    """LAttQE, in process."""

    def __call__(self, query: Floats, neighbours: Floats) -> Floats:
        """Return the expanded query [D] of a query [D] and its neighbours [k, D]."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table."""

    name: str
    neighbours: int = 0
    alpha: float = ALPHA

    def __str__(self) -> str:
        """As it is written on the command line."""
        if self.name == NONE:
            return NONE
        alpha = f":{self.alpha:g}" if self.name == "alphaqe" else ""
        return f"{self.name}:{self.neighbours}{alpha}"

    @property
    def family(self) -> str:
        """What it is called whatever its neighbours are."""
        return f"alphaqe, alpha {self.alpha:g}" if self.name == "alphaqe" else self.name


NO_EXPANSION = Method(name=NONE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """What is ranked: references for queries, all of unit norm."""

    queries: Floats
    """[Q, D]."""
    references: Floats
    """[N, D]."""
    own: Sequence[int | None]
    """Each query's own row of the references, which it never finds."""
    lattqe: Expander

    def blocks(self) -> Iterator[Space]:
        """Yield it by some queries at a time."""
        for start in range(0, len(self.queries), BLOCK):
            block = slice(start, start + BLOCK)
            yield replace(self, queries=self.queries[block], own=self.own[block])


Ranker = Callable[[Method, Space], Iterator[Ids]]


def parse_all(text: str, *, positions: int) -> list[Method]:
    """Read METHOD,METHOD,..., each once. OpsError."""
    return list(dict.fromkeys(parse(one, positions=positions) for one in text.split(",")))


def parse(text: str, *, positions: int) -> Method:
    """Read NAME[:NEIGHBOURS[:ALPHA]]; positions: how many neighbours the exported LAttQE knows. OpsError."""
    name, *rest = text.strip().split(":")
    if name not in RANKERS:
        raise OpsError(f"--methods names {name!r}; expected some of {', '.join(RANKERS)}, such as alphaqe:10:3")
    if name == NONE and not rest:
        return NO_EXPANSION
    most = limits(positions).get(name, 0)
    try:
        neighbours = int(rest[0]) if rest else min(DEFAULTS[name], most)
        alpha = float(rest[1]) if len(rest) > 1 else ALPHA
    except ValueError as error:
        raise OpsError(f"--methods has {text!r}; expected NAME:NEIGHBOURS:ALPHA, such as alphaqe:10:3") from error
    if len(rest) > (2 if name == "alphaqe" else 1 if name != NONE else 0) or not 1 <= neighbours <= most:
        raise OpsError(
            f"--methods has {text!r}; expected {name} with 1 to {most} neighbours, and alpha for alphaqe alone"
        )
    return Method(name=name, neighbours=neighbours, alpha=alpha)


def rankings(
    method: Method, queries: Floats, references: Floats, own: Sequence[int | None], *, lattqe: Expander
) -> Iterator[Ids]:
    """Yield for each query all rows of the references, best first, without the query's own.

    queries: [Q, D]; references: [N, D], both of unit norm. Of equal scores the earlier row leads.
    """
    space = Space(queries=queries, references=references, own=own, lattqe=lattqe)
    return RANKERS[method.name](method, space)


def _plain(method: Method, space: Space) -> Iterator[Ids]:
    """Rank by the cosine."""
    for block in space.blocks():
        yield from _ranked(block)


def _expanding(method: Method, space: Space) -> Iterator[Ids]:
    """Rank, expand each query by its nearest, and rank again."""
    for block in space.blocks():
        pairs = zip(block.queries, _ranked(block), strict=True)
        expanded = np.stack([_expanded(method, query, order, space) for query, order in pairs])
        yield from _ranked(replace(block, queries=expanded))


def _expanded(method: Method, query: Floats, order: Ids, space: Space) -> Floats:
    neighbours = space.references[order[: method.neighbours]]
    if not len(neighbours):
        return query
    if method.name == LATTQE:
        return space.lattqe(query, neighbours)
    lowest = space.references[order[-NEGATIVES:]]
    return classical(method.name, query, neighbours, alpha=method.alpha, lowest=lowest)


def _ranked(space: Space) -> list[Ids]:
    scores: NDArray[Any] = space.queries @ space.references.T
    orders = np.argsort(-scores, axis=1, kind="stable")
    return [order if row is None else order[order != row] for order, row in zip(orders, space.own, strict=True)]


RANKERS: Mapping[str, Ranker] = {NONE: _plain, **dict.fromkeys(DEFAULTS, _expanding)}
"""By the method's name."""
