"""A ranking of the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids

Floats = NDArray[np.float32]


class Ranked(NamedTuple):
    """Rows of the references, best first, and their scores."""

    rows: Ids
    """[n]."""
    scores: NDArray[np.floating[Any]]
    """[n], descending."""


def in_order(scores: NDArray[np.floating[Any]], own: Sequence[int | None]) -> list[Ranked]:
    """Return the rankings by scores [Q, N], without each query's own row. Ties keep the order of the rows."""
    orders = np.argsort(-scores, axis=1, kind="stable")
    found = []
    for line, order, row in zip(scores, orders, own, strict=True):
        rows = order if row is None else order[order != row]
        found.append(Ranked(rows, line[rows]))
    return found
