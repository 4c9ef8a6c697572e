"""The figures of the report, from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.client.scores import SURE
from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.ops.bench.statistics import MedianEstimate, estimate
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.research.very_same_data import Sought
from landseer.ops.research.very_same_index import Indexed, Rates
from landseer.ops.research.very_same_search import DEFAULT, GLOBAL, SHORT_LIST, Found
from landseer.ops.research.very_same_words import ScaledWords
from landseer.v1.index_pb2 import StatsResponse

TOTAL = "total"
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """What the row `sift` found, for a sample of the queries."""

    data: Dataset
    """With the sample as its queries."""
    orders: Sequence[Ids]
    """All references for each query, best first."""
    milliseconds: float
    """Of a search, the median; without finding the keypoints of the query."""

    @cached_property
    def figures(self) -> Evaluation:
        """Judged on as many hits as the other rows have."""
        return judged([order[:SHORT_LIST] for order in self.orders], self.data)


@dataclass(kw_only=True, eq=False)
class SetFigures:
    """The answers on one data set, as far as they are known."""

    sought: Sought
    found: dict[str, list[Found]] = field(default_factory=dict)
    """By the row's name."""
    timed: dict[str, list[Found]] = field(default_factory=dict)
    """The same of the timed searches, of few hits."""
    others: float = 0.0
    """Share of all cores that other programs used during the timed searches."""
    baseline: Baseline | None = None

    def figures(self, row: str) -> Evaluation:
        """Judge a row."""
        return judged([one.order for one in self.found[row]], self.sought.data)

    def against(self, row: str, baseline: Baseline) -> tuple[Floats, Floats]:
        """Return by query of the sample how much more often the first hit is right, and how much higher AP is."""
        places = {query.shot: place for place, query in enumerate(self.sought.data.queries)}
        sample = [places[query.shot] for query in baseline.data.queries]
        mine, base = self.figures(row), baseline.figures
        return mine.precisions[sample, 0] - base.precisions[:, 0], mine.aps[sample] - base.aps


@dataclass(frozen=True, kw_only=True, eq=False)
class LibraryFigures:
    """An indexed library."""

    indexed: Indexed
    stats: StatsResponse


@dataclass(kw_only=True, eq=False)
class Measured:
    """Everything that is known so far."""

    libraries: list[LibraryFigures] = field(default_factory=list)
    sets: list[SetFigures] = field(default_factory=list)
    rates: Rates | None = None
    words: list[ScaledWords] = field(default_factory=list)
    pool: str = ""
    """Where generated pictures come from."""


def judged(orders: Sequence[Ids], data: Dataset) -> Evaluation:
    """Judge rankings, cut anywhere: what they lack counts as not found."""
    return evaluate(orders, data.truths(), ks=(1,))


def milliseconds(found: Sequence[Found], stage: str) -> Floats:
    """Return the ms of a stage in the answers that have it, [n]."""
    return 1e3 * np.array([one.stages[stage] for one in found if stage in one.stages], np.float64)


def waited(found: Sequence[Found]) -> Floats:
    """Return the ms that the caller waited, [n]."""
    return 1e3 * np.array([one.seconds for one in found], np.float64)


def added(timed: Mapping[str, Sequence[Found]], *, seed: int) -> MedianEstimate:
    """Return how many ms longer the default takes than the global descriptor alone, paired by query."""
    return estimate(waited(timed[DEFAULT.name]) - waited(timed[GLOBAL.name]), seed=seed)


@dataclass(frozen=True, kw_only=True)
class WrongHit:
    """A hit that is sure, and not among the right answers."""

    query: Path
    hit: Path
    inliers: int
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedHits:
    """The verified hits of all queries, [n] each."""

    classes: Ids
    """The class of the query."""
    right: NDArray[np.bool_]
    probabilities: Floats

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Those with a probability of at least `SURE`."""
        return self.probabilities >= SURE


def verified_hits(found: Sequence[Found], data: Dataset) -> VerifiedHits:
    """Return the hits that were verified."""
    parts = [
        (np.full(len(one.order), own), np.isin(one.order, right), one.probabilities)
        for one, own, right in zip(found, data.classes(), _positives(data), strict=True)
    ]
    nothing = np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0)
    classes, right, probabilities = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    known = ~np.isnan(probabilities)
    return VerifiedHits(classes=classes[known], right=right[known], probabilities=probabilities[known])


def wrong_hits(found: Sequence[Found], data: Dataset) -> list[WrongHit]:
    """Return the sure hits that are wrong by the data set, surest first."""
    wrong = [
        WrongHit(
            query=query.shot.path,
            hit=data.references[one.order[place]],
            inliers=int(one.inliers[place]),
            probability=float(one.probabilities[place]),
        )
        for one, query, right in zip(found, data.queries, _positives(data), strict=True)
        for place in np.flatnonzero((one.probabilities >= SURE) & ~np.isin(one.order, right))
    ]
    return sorted(wrong, key=lambda one: -one.probability)


def _positives(data: Dataset) -> list[Ids]:
    return [np.concatenate([truth.easy, truth.hard]) for truth in data.truths()]
