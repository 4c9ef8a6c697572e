"""For which queries a method gains: by how many positives they have, by how well they did without expansion.

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
"""Of the bootstrap: there are many ranges, and their intervals are wide."""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """The queries of a range, and what a method gains on them."""

    system: str
    method: str
    protocol: Protocol
    by: By
    low: float
    high: float
    """The range, both ends in it; the high end of average precisions belongs to the next range but for 1."""
    queries: int
    gain: Estimate


def regimes(rows: Sequence[MethodRow], truths: Sequence[Truth]) -> list[Regime]:
    """Return the regimes of every row that expands."""
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
    """Return how many references each query should find, [Q]."""
    parts, _ = PROTOCOLS[protocol]
    return np.array([sum(len(getattr(truth, part)) for part in parts) for truth in truths], np.float64)


def _even(counts: Floats) -> list[tuple[float, float]]:
    """Return ranges of whole numbers, both ends in it, each of about as many of the counts."""
    starts = np.unique(np.quantile(counts, np.arange(BINS) / BINS, method="higher"))
    ends = [*(starts[1:] - 1), counts.max()]
    return [(float(low), float(high)) for low, high in zip(starts, ends, strict=True)]
