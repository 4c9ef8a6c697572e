"""The methods by name, their numbers of neighbours, and how those without a network are computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.search.expansion.dqe import discriminative
from landseer.ensemble.search.expansion.weights import CURVE, WEIGHTINGS, combined

LATTQE, DQE, RANK_CURVE = "lattqe", "dqe", "rank-curve"
VERIFIED = "verified"
"""AQE by hits that spatial verification confirmed (Chum et al. 2007): it runs after verification, unlike the others."""
VERIFIED_NEIGHBOURS = 10
"""Most verified hits that expand a query. Products gain less with 3, and with 50, some of which are another kind."""
BESIDE_LATTQE = 0.2
"""Weight of each verified hit where it is added to the query that LAttQE expanded, whose own weight is 1. Of 0.2 to 0.7
it gained most (docs/research/expansion.md)."""
WITNESSES, RECOGNISED = 2, 30
"""First verified hits that others are compared with, and most of those: with 1 and 30 products gain 0.7 mAP, with 3 and
30 they gain 0.8. One may be a copy of the query, which recognises nothing new."""
DEFAULTS: Mapping[str, int] = {
    LATTQE: 64,
    "aqe": 1,
    "aqewd": 2,
    "aqewd-dir": 2,
    "alphaqe": 2,
    DQE: 2,
    RANK_CURVE: 8,
}
"""Numbers of neighbours. LAttQE's is its paper's. The others are the most that cost neither products nor covers more
than 0.3 mAP or half a point of first hits (docs/reports/results-expansion.md); DQE loses covers with any number."""
AUGMENTATION_DEFAULTS: Mapping[str, int] = {**DEFAULTS, LATTQE: 4, RANK_CURVE: 4}
"""Numbers of neighbours for database-side augmentation. LAttQE's was chosen on held-out things: the 48 of its paper
cost covers 24 mAP with the network that ships (docs/reports/expansion-sweep.md). Every method costs covers first hits;
the rank curve has its highest mAP on covers with 4."""
MOST = 1000
"""Limit of neighbours, unless `limits` has a lower one."""
_MOST_OF_AN_SVM = 64
"""Its time grows faster than linearly: on one core, 0.2 ms for 4 and 21 ms for 64 neighbours of 1,280 dimensions."""


def limits(positions: int) -> dict[str, int]:
    """Return the limit of neighbours by method. positions: the number of neighbours the served LAttQE takes."""
    return dict.fromkeys(WEIGHTINGS, MOST) | {LATTQE: positions, DQE: _MOST_OF_AN_SVM, RANK_CURVE: len(CURVE) - 1}


def by_verified_hits(
    query: NDArray[np.float32], hits: NDArray[np.float32], *, learned: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return a query [D] expanded by its verified hits [k, D], float32 [D], of unit norm: their mean.

    learned: the query as LAttQE expanded it, [D]; hits are then added to that one, each with `BESIDE_LATTQE`.
    """
    if learned is None:
        return combined(query, hits, np.ones(len(hits) + 1))
    return combined(learned, hits, np.concatenate([[1.0], np.full(len(hits), BESIDE_LATTQE)]))


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
    used by DQE only.
    """
    if method == DQE:
        return discriminative(query, neighbours, lowest)
    return combined(query, neighbours, WEIGHTINGS[method](neighbours @ query, alpha))
