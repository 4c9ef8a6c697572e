"""Expansions on labelled vectors, where pictures are searched for among the others; and their tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from landseer.ensemble.evaluation import Evaluation, evaluate
from landseer.ensemble.search.expansion.methods import DQE, LATTQE
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ensemble.search.expansion.weights import ALPHA
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.training.expansion import expand_all
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.database import Databases
from landseer.ops.evaluate.head_vectors import Vectors
from landseer.ops.evaluate.labelled_vectors import LabelledVectors
from landseer.ops.evaluate.methods import NO_EXPANSION, Method, rankings

LATTQE_NEIGHBOURS, LATTDBA_NEIGHBOURS = 64, 48
"""As in the paper."""
LATTQE_SEARCH = Method(name=LATTQE, neighbours=LATTQE_NEIGHBOURS)


class LabelledSearch:
    """Searches labelled vectors, with one network for LAttQE; None if no method needs it."""

    def __init__(self, space: LabelledVectors, network: ExpansionNetwork | None = None) -> None:
        self.space, self.network = space, network
        self._own = space.queries.tolist()
        self._databases = Databases(space.vectors, self._own, attention=lambda: self._attend)

    def by(self, method: Method) -> Evaluation:
        """Rank by a method. A database is augmented as if the query had never been in it."""
        database = self._databases.of(method.database, lambda what, steps: lambda: None)
        queries = self.space.vectors[self.space.queries]
        ranked = list(rankings(method, queries, database, self._own, lattqe=self._expand))
        return evaluate(ranked, self.space.truths(), ks=(1, 10))

    def _expand(self, query: Vectors, neighbours: Vectors) -> Vectors:
        return np.asarray(expand_all(self._needed(), query[None], neighbours[None])[0])

    def _attend(self, queries: Vectors, neighbours: Vectors) -> Vectors:
        """Return the network's weights of the neighbours, [n, k]."""
        tokens = torch.from_numpy(np.concatenate([queries[:, None], neighbours], axis=1))
        with torch.no_grad():
            weights, _ = self._needed().weights(tokens, torch.ones(neighbours.shape[:2], dtype=torch.bool))
        return np.asarray(weights[:, 1:].numpy(), np.float32)

    def _needed(self) -> ExpansionNetwork:
        if self.network is None:
            raise OpsError("lattqe needs a network, but none was given")
        return self.network


GRIDS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "aqe": ((1, 2, 4, 8, 16, 32), (ALPHA,)),
    "aqewd": ((2, 4, 8, 16, 32, 64), (ALPHA,)),
    "aqewd-dir": ((2, 4, 8, 16, 32, 64), (ALPHA,)),
    "alphaqe": ((2, 4, 8, 16, 32, 64), (1.0, 3.0, 6.0)),
    DQE: ((2, 4, 8, 16), (ALPHA,)),
}
"""Values that untrained methods are tuned over: neighbours, and alpha."""
DATABASE_NEIGHBOURS = (4, 8, 16, 32, 48)
LATTQE_COUNTS = (4, 8, 16, 32, 64)
TEMPERATURES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


Tuning = Sequence[LabelledSearch]
"""Training data, each with a network that was not trained on the classes of its queries."""


def best(spaces: Tuning, methods: Sequence[Method]) -> Method:
    """Return the method with the highest mAP over the queries of all spaces."""
    return max(methods, key=lambda method: np.concatenate([one.by(method).aps for one in spaces]).mean())


def tuned(spaces: Tuning, name: str) -> Method:
    """Return an untrained method with the neighbours and alpha that are best on the training classes."""
    counts, alphas = GRIDS[name]
    return best(spaces, [Method(name=name, neighbours=k, alpha=alpha) for k, alpha in product(counts, alphas)])


def tuned_database(spaces: Tuning, query: Method) -> Method:
    """Return a method on a database augmented by the same method, with its best number of neighbours."""
    alpha = query.alpha if query.name == "alphaqe" else 0.0
    recipes = [Recipe(method=query.name, neighbours=k, parameter=alpha) for k in DATABASE_NEIGHBOURS]
    return best(spaces, [replace(query, database=recipe) for recipe in recipes])


def tuned_lattdba(spaces: Tuning) -> Method:
    """Return LAttDBA with the best temperature; the paper learns the temperature by gradient descent."""
    recipes = [Recipe(method=LATTQE, neighbours=LATTDBA_NEIGHBOURS, parameter=t) for t in TEMPERATURES]
    return best(spaces, [replace(NO_EXPANSION, database=recipe) for recipe in recipes])


def tuned_lattqe(spaces: Tuning) -> Method:
    """Return LAttQE with the best number of neighbours, tuned like untrained methods."""
    return best(spaces, [replace(LATTQE_SEARCH, neighbours=k) for k in LATTQE_COUNTS])


def tuned_behind_lattdba(spaces: Tuning, query: Method) -> Method:
    """Return a method on a database augmented by LAttDBA, with its best neighbours and temperature."""
    counts = product(DATABASE_NEIGHBOURS, TEMPERATURES)
    recipes = [Recipe(method=LATTQE, neighbours=k, parameter=temperature) for k, temperature in counts]
    return best(spaces, [replace(query, database=recipe) for recipe in recipes])
