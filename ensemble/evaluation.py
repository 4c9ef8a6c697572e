"""How good a ranking is, by the protocol of Revisited Oxford and Paris.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018. Numbers equal
those of the authors' `compute_map` to 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Protocol = Literal["easy", "medium", "hard"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What a query should find: ids of the pictures that show its subject, by how hard they are to recognise."""

    easy: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    hard: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    junk: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Neither right nor wrong: removed from the ranking before it is judged."""


PROTOCOLS: dict[Protocol, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""Which parts of the truth count as positive, and which as junk."""
_DRAWN_AT_ONCE = 2**16
"""Draws of the bootstrap that are in memory at a time: 1.5 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Figures of a set of queries. A query without positives has NaN and does not count in the means."""

    aps: Floats
    """Average precision of each query, [Q]."""
    precisions: Floats
    """Precision at each k, [Q, len(ks)]."""

    @property
    def map(self) -> float:
        """Mean average precision over the queries that have positives; NaN if none has."""
        return float(_mean(self.aps))

    @property
    def mean_precisions(self) -> Floats:
        """mP@k, [len(ks)]."""
        return _mean(self.precisions)


def evaluate(
    rankings: Sequence[Ids], truths: Sequence[Truth], *, protocol: Protocol = "medium", ks: Sequence[int] = (1, 5, 10)
) -> Evaluation:
    """Judge the ranking of each query (unique ids, best first, possibly truncated) against its truth."""
    if len(rankings) != len(truths):
        raise ValueError(f"got {len(rankings)} rankings and {len(truths)} truths; expected one truth for each ranking")
    aps, precisions = np.full(len(rankings), np.nan), np.full((len(rankings), len(ks)), np.nan)
    for row, (ranking, truth) in enumerate(zip(rankings, truths, strict=True)):
        positives, junk = (_gather(truth, parts) for parts in PROTOCOLS[protocol])
        if len(positives):
            ranks = positive_ranks(ranking, positives=positives, junk=junk)
            aps[row] = average_precision(ranks, positives=len(positives))
            precisions[row] = [precision_at(ranks, k) for k in ks]
    return Evaluation(aps=aps, precisions=precisions)


def positive_ranks(ranking: Ids, *, positives: Ids, junk: Ids) -> Ids:
    """Return the ranks (from 0, ascending) of the positives in a ranking after junk is removed.

    Positives that a truncated ranking lacks are omitted.
    """
    kept = np.asarray(ranking)
    kept = kept[~np.isin(kept, junk)]
    return np.flatnonzero(np.isin(kept, positives)).astype(np.int64)


def average_precision(ranks: Ids, *, positives: int) -> float:
    """Return the area under the precision-recall curve by the trapezoid rule, precision before rank 0 being 1.

    ranks: of the positives that were found, [m], from 0, ascending. positives: the number of all positives; those not
    found add nothing.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    after = (found + 1) / (ranks + 1)
    return float(np.sum(before + after) / (2 * positives))


def precision_at(ranks: Ids, k: int) -> float:
    """Return the share of positives among the first min(k, last positive's place) places; 0 if none was found."""
    if not len(ranks):
        return 0.0
    places = ranks + 1
    k = min(int(places[-1]), k)
    return float(np.count_nonzero(places <= k) / k)


class Interval(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


def bootstrap_interval(
    values: npt.ArrayLike,
    classes: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    rounds: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of values [Q].

    classes: the class of each query, [Q]. Queries of one class are not independent, so whole classes are drawn with
    replacement, each with all of its queries: the cluster bootstrap (Field and Welsh, "Bootstrapping clustered data",
    JRSS B 69, 2007). Without classes, single queries are drawn (Efron 1979).

    Values that are NaN are dropped first; if none is left, both ends are NaN. The same seed gives the same interval.
    """
    sample = np.asarray(values, np.float64)
    known = ~np.isnan(sample)
    if not known.any():
        return Interval(float("nan"), float("nan"))
    groups = np.arange(np.count_nonzero(known))
    if classes is not None:
        _, groups = np.unique(np.asarray(classes)[known], return_inverse=True)
    sums, counts = np.asarray(np.bincount(groups, sample[known]), np.float64), np.bincount(groups)
    means = _resampled_means(sums, counts, rounds, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _resampled_means(sums: Floats, counts: Ids, rounds: int, draws: np.random.Generator) -> Floats:
    """Return the mean over queries of each bootstrap round, [rounds].

    sums, counts: the sum and the number of the values of each class, [C].
    """
    block = max(1, _DRAWN_AT_ONCE // len(sums))
    means = []
    for start in range(0, rounds, block):
        drawn = draws.integers(len(sums), size=(min(block, rounds - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _gather(truth: Truth, parts: Sequence[str]) -> Ids:
    return np.concatenate([np.asarray(getattr(truth, part), np.int64) for part in parts])


def _mean(values: Floats) -> Floats:
    """Mean over queries [Q, ...] without NaN; NaN, and no warning, where nothing is left."""
    counted = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(counted, values, 0.0).sum(axis=0) / counted.sum(axis=0)
    return mean
