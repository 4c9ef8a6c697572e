"""The figures of a method, with bootstrap intervals, and its gain over no expansion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from landseer.ensemble.evaluation import Evaluation, Ids, Interval, Protocol, bootstrap_interval
from landseer.ops.evaluate.failures import Failure
from landseer.ops.evaluate.methods import Method

KS = (1, 10)
"""Numbers of first hits that precision is measured of."""
ROUNDS = 10_000
"""Rounds of the bootstrap."""
FEWEST_CLASSES = 5
"""With fewer, no interval over classes is given: the cluster bootstrap is far too narrow for a handful of clusters
(Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors", 2008)."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over queries and its 95% bootstrap intervals, as fractions of 1."""

    value: float
    over_classes: Interval | None
    """The interval to go by: queries of a class are not independent. None for fewer than `FEWEST_CLASSES`."""
    over_queries: Interval
    """Too narrow if queries of a class resemble each other; for comparison with figures published that way."""

    @classmethod
    def of(cls, values: npt.ArrayLike, classes: Ids, *, seed: int = 0, rounds: int = ROUNDS) -> Estimate:
        """Estimate the mean of values [Q], NaN for a query without one. classes: the class of each query, [Q]."""
        sample = np.asarray(values, np.float64)
        known = ~np.isnan(sample)
        enough = len(np.unique(classes[known])) >= FEWEST_CLASSES
        return cls(
            value=float(sample[known].mean()) if known.any() else float("nan"),
            over_classes=bootstrap_interval(sample, classes, seed=seed, rounds=rounds) if enough else None,
            over_queries=bootstrap_interval(sample, seed=seed, rounds=rounds),
        )

    def as_dict(self) -> dict[str, float | Interval | None]:
        """Return the numbers for JSON, which has no NaN; `low` and `high` are the interval over queries."""
        numbers = {"value": self.value, "low": self.over_queries.low, "high": self.over_queries.high}
        plain = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        return {**plain, "interval_over_classes": self.over_classes}


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodRow:
    """The figures of one method on one system by one protocol. Intervals are computed on first use."""

    system: str
    """Name of the system."""
    method: Method
    protocol: Protocol
    figures: Evaluation
    base: Evaluation
    """The same without expansion; `figures` itself if there is nothing to compare to."""
    classes: Ids
    """The class of each query, [Q]."""
    seed: int
    """Of the intervals."""
    failures: Sequence[Failure] = ()
    """The queries with the lowest average precision, if requested."""
    milliseconds: float | None = None
    """Time of a search, the median over queries; None if not measured."""
    index_bytes: float | None = None
    """Size of the index per reference; None if unknown."""

    def over(self, base: MethodRow | None) -> MethodRow:
        """Return it compared to the row without expansion; unchanged if that is None."""
        return self if base is None else replace(self, base=base.figures)

    @cached_property
    def map(self) -> Estimate:
        """Mean average precision."""
        return self._estimate(self.figures.aps)

    @cached_property
    def mp10(self) -> Estimate:
        """Mean precision of the first ten."""
        return self._estimate(self.figures.precisions[:, KS.index(10)])

    @cached_property
    def recall_at_1(self) -> Estimate:
        """How often the first hit is right."""
        return self._estimate(self.figures.precisions[:, KS.index(1)])

    @cached_property
    def gain(self) -> Estimate | None:
        """The mean difference of average precisions to no expansion, paired by query; None without one."""
        return None if self.base is self.figures else self._estimate(self.gains)

    @property
    def gains(self) -> npt.NDArray[np.float64]:
        """By query, [Q]; NaN where a query has no positives."""
        return self.figures.aps - self.base.aps

    def _estimate(self, values: npt.NDArray[np.float64]) -> Estimate:
        return Estimate.of(values, self.classes, seed=self.seed)
