"""Data sets as vectors, and the figures of searching them by expanded queries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.evaluation import average_precision
from landseer.ensemble.search.expansion.dqe import NEGATIVES, discriminative
from landseer.ensemble.search.expansion.weights import WEIGHTINGS
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.training.episodes import Episode, unit
from landseer.export.training.expansion import expand_all
from landseer.ops.evaluate.space import Expander

SURE = 0.5
"""Probability from which the gated form expands by a neighbour."""
AT_ONCE = 64
"""Queries that a network weighs at a time."""

Floats = NDArray[np.float32]
Expand = Callable[[Floats, Floats, Floats], Floats]
"""From queries [Q, D], neighbours [Q, k, D], best first, and the lowest ranked [Q, m, D], to what is searched for."""
Weigh = Callable[[Floats, Floats], NDArray[np.floating[Any]]]
"""From queries [Q, D] and neighbours [Q, k, D], best first, to weights [Q, k]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """A data set as vectors."""

    queries: Floats
    """[Q, D], of unit norm."""
    database: Floats
    """[N, D]."""
    relevant: NDArray[np.bool_]
    """[Q, N]."""
    hidden: NDArray[np.bool_]
    """[Q, N]: the query's own picture."""
    classes: NDArray[np.int64]
    """[Q]."""

    @cached_property
    def digest(self) -> str:
        """Identifies vectors and right answers."""
        arrays = (self.queries, self.database, self.relevant, self.hidden)
        return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in arrays)).hexdigest()

    def drawn(self, count: int) -> Searched:
        """Return the same with `count` queries drawn at random, all if there are no more."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.queries))[:count])
        return replace(
            self,
            queries=self.queries[rows],
            relevant=self.relevant[rows],
            hidden=self.hidden[rows],
            classes=self.classes[rows],
        )

    def ranked(self, queries: Floats) -> NDArray[np.int64]:
        """Return the rows, best first, [Q, N]; the query's own is last."""
        scores = np.where(self.hidden, -np.inf, queries @ self.database.T)
        return np.argsort(-scores, axis=1, kind="stable")

    def by(self, expand: Expand | None, count: int) -> Figures:
        """Search, expanded by `count` neighbours; None does not expand."""
        queries = self.queries
        if expand is not None:
            most = int((~self.hidden).sum(axis=1).min())
            order = self.ranked(queries)[:, :most]
            near, far = self.database[order[:, : min(count, most)]], self.database[order[:, -NEGATIVES:]]
            queries = expand(queries, near, far)
        return self.figures(self.ranked(np.asarray(queries, np.float32)))

    def figures(self, orders: NDArray[np.int64]) -> Figures:
        """Judge rankings [Q, n], best first; the query's own may be missing."""
        right = np.take_along_axis(self.relevant, orders, axis=1)
        aps = [average_precision(np.flatnonzero(row), positives=int(row.sum())) for row in right]
        return Figures(aps=100.0 * np.array(aps, np.float64), first=100.0 * right[:, 0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """Average precision and first hit right, in percent, of each query, [Q]."""

    aps: NDArray[np.float64]
    first: NDArray[np.float64]

    @classmethod
    def of(cls, some: Sequence[Figures]) -> Figures:
        """Put those of several pieces one after the other."""
        return cls(aps=np.concatenate([one.aps for one in some]), first=np.concatenate([one.first for one in some]))


def of_labels(vectors: Floats, labels: NDArray[np.int64]) -> Searched:
    """Return each vector [N, D] whose label [N] another has, searched among the others."""
    same = labels[:, None] == labels[None]
    rows = np.flatnonzero(same.sum(axis=1) > 1)
    own = np.eye(len(labels), dtype=bool)
    relevant = (same & ~own)[rows]
    return Searched(queries=vectors[rows], database=vectors, relevant=relevant, hidden=own[rows], classes=labels[rows])


def of_episode(episode: Episode) -> Searched:
    """Return a validation episode of a training."""
    relevant = episode.labels[None] == episode.wanted[:, None]
    hidden = np.zeros_like(relevant)
    queries, database = episode.queries, episode.vectors
    return Searched(queries=queries, database=database, relevant=relevant, hidden=hidden, classes=episode.wanted)


def summed(weigh: Weigh) -> Expand:
    """Return the expansion that adds the weighted neighbours to the query."""

    def expand(queries: Floats, near: Floats, far: Floats) -> Floats:
        return np.asarray(queries + np.einsum("qk,qkd->qd", weigh(queries, near), near), np.float32)

    return expand


def by_svm(queries: Floats, near: Floats, far: Floats) -> Floats:
    """Return the query expanded by DQE."""
    return np.stack([discriminative(*one) for one in zip(queries, near, far, strict=True)])


def by_rule(name: str, alpha: float = 1.0) -> Expand:
    """Return a method with weights that no network gives."""

    def weigh(queries: Floats, near: Floats) -> NDArray[np.floating[Any]]:
        return WEIGHTINGS[name](np.einsum("qd,qkd->qk", queries, near), alpha)[:, 1:]

    return summed(weigh)


def by_network(network: ExpansionNetwork, *, directions: Floats | None = None, gated: bool = False) -> Expand:
    """Return a network. directions: [D, d] that it reads alone; gated: only relevant neighbours are added."""
    return summed(partial(_weights, network, directions, gated))


def expander(network: ExpansionNetwork) -> Expander:
    """Return a network as an evaluation takes it, for a query at a time."""
    return lambda query, neighbours: expand_all(network, query[None], neighbours[None])[0]


@torch.no_grad()
def _weights(
    network: ExpansionNetwork, directions: Floats | None, gated: bool, queries: Floats, near: Floats
) -> Floats:
    found = []
    for start in range(0, len(queries), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        tokens = np.concatenate([queries[rows, None], near[rows]], axis=1)
        read = tokens if directions is None else unit_last(tokens @ directions)
        mask = torch.ones(read.shape[0], read.shape[1] - 1, dtype=torch.bool)
        weights, logits = network.weights(torch.from_numpy(read), mask)
        kept = (torch.sigmoid(logits) >= SURE) & (weights > 0) if gated else torch.ones_like(weights)
        found.append((weights * kept)[:, 1:].numpy())
    return np.concatenate(found)


def unit_last(vectors: Floats) -> Floats:
    """Return vectors [..., D] of unit norm."""
    return unit(vectors.reshape(-1, vectors.shape[-1])).reshape(vectors.shape)
