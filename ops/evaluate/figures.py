"""What a method reached, with bootstrap intervals, and its gain over no expansion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from landseer.ensemble.evaluation import Evaluation, Protocol, bootstrap_interval
from landseer.ops.evaluate.failures import Failure
from landseer.ops.evaluate.methods import NO_EXPANSION, Method

KS = (1, 10)
"""Of the precisions."""
ROUNDS = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over queries, and its 95% bootstrap interval. Shares of 1."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.ArrayLike, *, seed: int, rounds: int = ROUNDS) -> Estimate:
        """Estimate from one value a query, [Q]; NaN where a query has none."""
        sample = np.asarray(values, np.float64)
        sample = sample[~np.isnan(sample)]
        low, high = bootstrap_interval(sample, seed=seed, rounds=rounds)
        return cls(value=float(sample.mean()) if len(sample) else float("nan"), low=low, high=high)

    def as_dict(self) -> dict[str, float | None]:
        """Return the three numbers for JSON, which has no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(number) else number for name, number in numbers.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One method of one system, by one protocol. Intervals are computed when they are first asked for."""

    system: str
    """Name of the system."""
    method: Method
    protocol: Protocol
    figures: Evaluation
    base: Evaluation
    """The same without expansion."""
    seed: int
    """Of the intervals."""
    failures: Sequence[Failure] = ()
    """The queries of the least average precision, if they were asked for."""
    milliseconds: float | None = None
    """Of a search, the median over queries; None where it was not measured."""
    index_bytes: float | None = None
    """Of a reference in what is searched; None where that is not known."""

    def over(self, base: Row | None) -> Row:
        """Return it compared to the row without expansion; to itself if that is not given."""
        return self if base is None else replace(self, base=base.figures)

    @cached_property
    def map(self) -> Estimate:
        """Mean average precision."""
        return Estimate.of(self.figures.aps, seed=self.seed)

    @cached_property
    def mp10(self) -> Estimate:
        """Mean precision of the first ten."""
        return Estimate.of(self.figures.precisions[:, KS.index(10)], seed=self.seed)

    @cached_property
    def recall_at_1(self) -> Estimate:
        """How often the first hit is right."""
        return Estimate.of(self.figures.precisions[:, KS.index(1)], seed=self.seed)

    @cached_property
    def gain(self) -> Estimate | None:
        """The mean difference of average precisions to no expansion, paired by query; None for no expansion itself."""
        return None if self.method == NO_EXPANSION else Estimate.of(self.gains, seed=self.seed)

    @property
    def gains(self) -> npt.NDArray[np.float64]:
        """By query, [Q]; NaN where a query has no positives."""
        return self.figures.aps - self.base.aps
