"""Ways to search a space of vectors by expansion and augmentation, each picture for the others of its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, Ids, Truth, evaluate
from landseer.ensemble.expansion.augmentation import Augmenter, augmented
from landseer.ensemble.expansion.dqe import NEGATIVES
from landseer.ensemble.expansion.left_out import LeftOut
from landseer.ensemble.expansion.methods import DQE, LATTQE, classical
from landseer.ensemble.expansion.weights import ALPHA
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.training.expansion import expand_all

Vectors = NDArray[np.float32]
LATTQE_NEIGHBOURS, LATTDBA_NEIGHBOURS = 64, 48
"""As the paper has them; never tuned."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Pictures that are searched for among each other."""

    vectors: Vectors
    """[N, D], unit."""
    labels: NDArray[np.int64]
    """[N]."""
    queries: NDArray[np.int64]
    """Rows that are searched for."""
    how: str = ""
    """What described them."""

    def sampled(self, count: int, seed: int) -> Space:
        """Return it with so many of the queries, drawn with a seed."""
        draw = np.random.default_rng(seed)
        chosen = draw.choice(self.queries, min(count, len(self.queries)), replace=False)
        return replace(self, queries=np.sort(chosen))

    def truths(self) -> list[Truth]:
        """Return the rows that each query should find."""
        same = (np.flatnonzero(self.labels == self.labels[row]) for row in self.queries)
        return [Truth(easy=rows[rows != row]) for rows, row in zip(same, self.queries, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Part:
    """An expansion, of queries or of a database."""

    method: str
    neighbours: int
    parameter: float = ALPHA
    """alpha, or the temperature of LAttDBA."""

    def __str__(self) -> str:
        """As it is written on the command line."""
        tuned = f":{self.parameter:g}" if self.method == "alphaqe" else ""
        return f"{self.method}:{self.neighbours}{tuned}"


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a space is searched; nothing is expanded where a part is None."""

    name: str
    query: Part | None = None
    database: Part | None = None


def judge(space: Space, way: Way, network: ExpansionNetwork | None) -> Evaluation:
    """Rank by a way. The database is augmented for each query as if that were not in it."""
    return evaluate(list(_ranked(space, way, network)), space.truths(), ks=(1, 10))


def _ranked(space: Space, way: Way, network: ExpansionNetwork | None) -> Iterator[Ids]:
    database, left_out = space.vectors, None
    if way.database is not None:
        part, attention = way.database, _attention(network)
        given = {"parameter": part.parameter, "attention": attention}
        database = augmented(space.vectors, part.method, part.neighbours, **given)  # type: ignore[arg-type]
        left_out = LeftOut(Augmenter.over(space.vectors, part.method, part.neighbours, **given))  # type: ignore[arg-type]
    for row in space.queries:
        rows, instead = left_out.rows(int(row)) if left_out else (np.empty(0, np.int64), database[:0])
        kept, database[rows] = database[rows], instead
        order = _order(space.vectors[row], database, row)
        if way.query is not None:
            order = _order(_expanded(way.query, space.vectors[row], database, order, network), database, row)
        database[rows] = kept
        yield order


def _order(query: Vectors, database: Vectors, own: int) -> Ids:
    order = np.argsort(-(database @ query), kind="stable")
    return np.asarray(order[order != own], np.int64)


def _expanded(part: Part, query: Vectors, database: Vectors, order: Ids, network: ExpansionNetwork | None) -> Vectors:
    neighbours = database[order[: part.neighbours]]
    if part.method != LATTQE:
        lowest = database[order[-NEGATIVES:]]
        return classical(part.method, query, neighbours, alpha=part.parameter, lowest=lowest)
    if network is None:
        raise ValueError("lattqe needs its network")
    return np.asarray(expand_all(network, query[None], neighbours[None])[0])


def _attention(network: ExpansionNetwork | None) -> object:
    """Return the weights of neighbours by the network, in the form that `augmented` asks for."""

    def weigh(queries: Vectors, neighbours: Vectors) -> Vectors:
        if network is None:
            raise ValueError("lattqe needs its network")
        tokens = torch.from_numpy(np.concatenate([queries[:, None], neighbours], axis=1))
        with torch.no_grad():
            weights, _ = network.weights(tokens, torch.ones(neighbours.shape[:2], dtype=torch.bool))
        return np.asarray(weights[:, 1:].numpy(), np.float32)

    return weigh


GRIDS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "aqe": ((1, 2, 4, 8, 16, 32), (ALPHA,)),
    "aqewd": ((2, 4, 8, 16, 32, 64), (ALPHA,)),
    "aqewd-dir": ((2, 4, 8, 16, 32, 64), (ALPHA,)),
    "alphaqe": ((2, 4, 8, 16, 32, 64), (1.0, 3.0, 6.0)),
    DQE: ((2, 4, 8, 16), (ALPHA,)),
}
"""What rivals are tuned over: neighbours, and alpha."""
DATABASE_NEIGHBOURS = (4, 8, 16, 32, 48)
TEMPERATURES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def tuned(space: Space, method: str) -> Part:
    """Return the neighbours and alpha of a rival that do best on a space of training classes."""
    counts, alphas = GRIDS[method]
    parts = [Part(method=method, neighbours=k, parameter=alpha) for k, alpha in product(counts, alphas)]
    return _best(space, [Way(name="", query=part) for part in parts], None).query or parts[0]


def tuned_database(space: Space, query: Part) -> Part:
    """Return the neighbours that do best in the database, by the method and alpha of its query expansion."""
    parts = [replace(query, neighbours=k) for k in DATABASE_NEIGHBOURS]
    return _best(space, [Way(name="", query=query, database=part) for part in parts], None).database or parts[0]


def learned_temperature(space: Space, network: ExpansionNetwork) -> Part:
    """Return LAttDBA with the temperature that does best, all else frozen: the second step of the paper's training."""
    parts = [Part(method=LATTQE, neighbours=LATTDBA_NEIGHBOURS, parameter=t) for t in TEMPERATURES]
    return _best(space, [Way(name="", database=part) for part in parts], network).database or parts[0]


def _best(space: Space, ways: Sequence[Way], network: ExpansionNetwork | None) -> Way:
    return max(ways, key=lambda way: judge(space, way, network).map)
