"""The methods by name: how many neighbours each takes, and how the classical ones are computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.search.expansion.dqe import discriminative
from landseer.ensemble.search.expansion.weights import WEIGHTINGS, combined

LATTQE, DQE = "lattqe", "dqe"
DEFAULTS: Mapping[str, int] = {LATTQE: 64, "aqe": 2, "aqewd": 4, "aqewd-dir": 4, "alphaqe": 72, DQE: 4}
"""Neighbours, as LAttQE's paper has them in its tables."""
AUGMENTATION_DEFAULTS: Mapping[str, int] = {**DEFAULTS, LATTQE: 48}
"""Neighbours for database-side augmentation, nDBA: LAttQE's paper has 48; it tables no others, so they stay."""
MOST = 1000
"""Neighbours, unless `limits` says less."""
_MOST_OF_AN_SVM = 64
"""Its time grows faster than they do: measured on one core, 0.14 ms for 4 and 145 ms for 64 of 1,280 dimensions."""


def limits(positions: int) -> dict[str, int]:
    """Return the most neighbours by method. positions: how many the served LAttQE has learned."""
    return dict.fromkeys(WEIGHTINGS, MOST) | {LATTQE: positions, DQE: _MOST_OF_AN_SVM}


def classical(
    method: str,
    query: NDArray[np.float32],
    neighbours: NDArray[np.float32],
    *,
    alpha: float,
    lowest: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the query expanded by a method other than LAttQE, float32 [D], of unit norm.

    query: [D]; neighbours: [k, D], nearest first, without the query's own picture; lowest: [m, D], the lowest ranked,
    for DQE alone.
    """
    if method == DQE:
        return discriminative(query, neighbours, lowest)
    return combined(query, neighbours, WEIGHTINGS[method](neighbours @ query, alpha))
