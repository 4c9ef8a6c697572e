"""The statistics of benchmarks that compare contenders: rounds, ratios and their intervals.

Machines drift: other work comes and goes, clock rates change. So contenders take turns in short rounds, and a ratio is
taken between adjacent rounds, not between averages over the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of one contender."""

    seconds: float
    """From before the first request until after the last answer."""
    latencies: tuple[float, ...]
    """Seconds of each request, measured by its caller."""

    @property
    def throughput(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True, kw_only=True)
class MedianEstimate:
    """A median and its confidence interval."""

    median: float
    low: float
    high: float


def turns(names: Sequence[T], rounds: int) -> list[list[T]]:
    """Return the order of each round: every other round is reversed, and each pair of rounds is rotated by one more.

    So a steady drift of the machine cancels within each pair of rounds, and no contender is always first.
    """
    orders = []
    for number in range(rounds):
        start = number // 2 % len(names)
        order = [*names[start:], *names[:start]]
        orders.append(order[::-1] if number % 2 else order)
    return orders


def throughputs(rounds: Iterable[Round]) -> Floats:
    """Return the requests per second of each round."""
    return np.array([one.throughput for one in rounds])


def ratios(ours: Sequence[Round], baseline: Sequence[Round]) -> Floats:
    """Return our throughput divided by the baseline's, per round. ValueError if the numbers of rounds differ."""
    if len(ours) != len(baseline):
        raise ValueError(f"got {len(ours)} and {len(baseline)} rounds; expected equal numbers")
    return throughputs(ours) / throughputs(baseline)


def estimate(values: Floats, *, seed: int = 0, resamples: int = 10_000) -> MedianEstimate:
    """Return the median of values [n] and its 95% interval by the percentile bootstrap (Efron 1979), seeded.

    The interval runs from quantile 0.025 to 0.975 of the medians of `resamples` draws of n values with replacement.
    """
    if not len(values):
        raise ValueError("got no values; an estimate needs at least one")
    draws = np.random.default_rng(seed).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return MedianEstimate(median=float(np.median(values)), low=float(low), high=float(high))


def latency(rounds: Iterable[Round], share: float) -> float:
    """Return the quantile `share` of the latencies of all requests, in seconds."""
    return float(np.quantile([seconds for one in rounds for seconds in one.latencies], share))


def ranked(rounds: Mapping[str, Sequence[Round]], among: Iterable[str], *, against: str) -> list[str]:
    """Return `among` sorted by the median ratio to the throughput of `against`, greatest first; ties keep their order.

    By ratios and not by throughputs, because the machine may have changed between rounds.
    """
    return sorted(among, key=lambda name: -float(np.median(ratios(rounds[name], rounds[against]))))
