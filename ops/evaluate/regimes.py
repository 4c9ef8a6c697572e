"""For which queries a method gains: by number of positives, and by average precision without expansion.

As in Fig. 4 of Gordo, Radenovic and Berg, "Attention-Based Query Expansion Learning", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from landseer.ensemble.evaluation import PROTOCOLS, Protocol, Truth
from landseer.ops.evaluate.figures import Estimate, MethodRow

Floats = npt.NDArray[np.float64]
By = Literal["positives", "ap"]
BINS = 5
ROUNDS = 1000
"""Rounds of the bootstrap: fewer than elsewhere, since there are many ranges and their intervals are wide."""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """The queries in a range, and the gain of a method on them."""

    system: str
    method: str
    protocol: Protocol
    by: By
    low: float
    high: float
    """The range, including both ends; for average precisions without the high end, unless it is 1."""
    queries: int
    gain: Estimate


def regimes(rows: Sequence[MethodRow], truths: Sequence[Truth]) -> list[Regime]:
    """Return the regimes of every row that has a gain."""
    return [regime for row in rows if row.gain is not None for regime in _of(row, truths)]


def _of(row: MethodRow, truths: Sequence[Truth]) -> Iterator[Regime]:
    counts = positives(truths, row.protocol)
    ranges: tuple[tuple[By, Floats, list[tuple[float, float]]], ...] = (
        ("positives", counts, _even(counts[counts > 0])),
        ("ap", row.base.aps, [(low / BINS, (low + 1) / BINS) for low in range(BINS)]),
    )
    for by, values, pairs in ranges:
        for low, high in pairs:
            within = (values >= low) & ((values <= high) if by == "positives" or high == 1.0 else (values < high))
            if within.any():
                yield Regime(
                    system=row.system,
                    method=str(row.method),
                    protocol=row.protocol,
                    by=by,
                    low=low,
                    high=high,
                    queries=int(within.sum()),
                    gain=Estimate.of(row.gains[within], row.classes[within], seed=row.seed, rounds=ROUNDS),
                )


def positives(truths: Sequence[Truth], protocol: Protocol) -> Floats:
    """Return the number of right answers of each query, [Q]."""
    parts, _ = PROTOCOLS[protocol]
    return np.array([sum(len(getattr(truth, part)) for part in parts) for truth in truths], np.float64)


def _even(counts: Floats) -> list[tuple[float, float]]:
    """Return ranges of whole numbers, including both ends, with about equally many counts in each."""
    starts = np.unique(np.quantile(counts, np.arange(BINS) / BINS, method="higher"))
    ends = [*(starts[1:] - 1), counts.max()]
    return [(float(low), float(high)) for low, high in zip(starts, ends, strict=True)]
