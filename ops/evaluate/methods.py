"""The ways to rank that an evaluation compares: each expands the queries, or does not, and ranks by the cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ensemble.expansion.dqe import NEGATIVES
from landseer.ensemble.expansion.methods import DEFAULTS, LATTQE, classical, limits
from landseer.ensemble.expansion.weights import ALPHA
from landseer.ops.processes import OpsError

NONE = "none"
NAMES = (NONE, *DEFAULTS)
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


def parse(text: str, *, positions: int) -> Method:
    """Read NAME[:NEIGHBOURS[:ALPHA]]; positions: how many neighbours the exported LAttQE knows. OpsError."""
    name, *rest = text.strip().split(":")
    if name not in NAMES:
        raise OpsError(f"--methods names {name!r}; expected some of {', '.join(NAMES)}, such as alphaqe:10:3")
    if name == NONE and not rest:
        return Method(name=NONE)
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
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        expanded = queries[block]
        if method.name != NONE:
            first = _ranked(expanded, references, own[block])
            pairs = zip(expanded, first, strict=True)
            expanded = np.stack([_expanded(method, query, references, order, lattqe) for query, order in pairs])
        yield from _ranked(expanded, references, own[block])


def _expanded(method: Method, query: Floats, references: Floats, order: Ids, lattqe: Expander) -> Floats:
    neighbours = references[order[: method.neighbours]]
    if not len(neighbours):
        return query
    if method.name == LATTQE:
        return lattqe(query, neighbours)
    return classical(method.name, query, neighbours, alpha=method.alpha, lowest=references[order[-NEGATIVES:]])


def _ranked(queries: Floats, references: Floats, own: Sequence[int | None]) -> list[Ids]:
    scores: NDArray[Any] = queries @ references.T
    orders = np.argsort(-scores, axis=1, kind="stable")
    return [order if row is None else order[order != row] for order, row in zip(orders, own, strict=True)]
