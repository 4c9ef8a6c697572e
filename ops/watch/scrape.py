"""Reads a /metrics page, and compares two reads."""

from __future__ import annotations

import math
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from landseer.ops.errors import OpsError

TIMEOUT_S = 2.0
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """All samples of a page."""

    at: float
    """Seconds of the monotonic clock."""
    samples: Series
    """Value by name and labels."""

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; NaN if there are none."""
        return _sum(value for _, value in self._where(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Return that sum by the value of a label, sorted by the value."""
        return _grouped(self._where(name, labels), label)

    def _where(self, name: str, labels: Mapping[str, str]) -> list[tuple[dict[str, str], float]]:
        found = [(dict(given), value) for (called, given), value in self.samples.items() if called == name]
        return [(given, value) for given, value in found if labels.items() <= given.items()]


def parse(page: str, at: float) -> Scrape:
    """Parse a page in Prometheus' text format. ValueError for anything else."""
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return Scrape(at=at, samples={(one.name, frozenset(one.labels.items())): one.value for one in samples})


def fetch(url: str, trust: ssl.SSLContext | None = None) -> Scrape:
    """Read the page at `url`. OpsError if there is no answer, or the answer is something else.

    trust: whose certificates are trusted for https, None for public authorities.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=trust) as answer:
            return parse(answer.read().decode(), time.monotonic())
    except urllib.error.HTTPError as error:
        raise OpsError(f"{url} answers {error.code} {error.reason}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise OpsError(f"no answer from {url}: {getattr(reason, 'strerror', None) or reason}") from error
    except ValueError as error:
        raise OpsError(f"{url} is not a metrics page: {error}") from error


def increase(before: Scrape, now: Scrape) -> Scrape:
    """Return the increase of every counter; one that a restart reset counts from 0."""
    old = before.samples
    grown = {
        key: value - old.get(key, 0.0) if value >= old.get(key, 0.0) else value for key, value in now.samples.items()
    }
    return Scrape(at=now.at - before.at, samples=grown)


def quantile(q: float, buckets: Mapping[float, float]) -> float:
    """Return the q-quantile of a histogram as Prometheus' `histogram_quantile` does.

    `buckets` are cumulative counts by upper bound, +Inf among them; q is 0 to 1. Interpolates linearly
    within a bucket; the first starts at 0. In the last bucket returns its lower bound. NaN without samples.
    """
    bounds, counts = sorted(buckets), _rising(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or counts[-1] == 0 or math.isnan(q):
        return math.nan
    rank = q * counts[-1]
    place = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(bounds) - 1)
    if place == len(bounds) - 1:
        return bounds[-2]
    if place == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    inside = counts[place] - below
    return start + (bounds[place] - start) * ((rank - below) / inside) if inside else math.nan


def buckets(scrape: Scrape, name: str, **labels: str) -> dict[float, float]:
    """Return a histogram's cumulative counts by upper bound, summed over all other labels."""
    return {float(bound): count for bound, count in scrape.by("le", f"{name}_bucket", **labels).items()}


def _rising(buckets: Mapping[float, float]) -> list[float]:
    """Return the counts by rising bound, made non-decreasing: a page is not a snapshot of one instant."""
    counts: list[float] = []
    for bound in sorted(buckets):
        counts.append(max(buckets[bound], counts[-1] if counts else 0.0))
    return counts


def _grouped(samples: Iterable[tuple[dict[str, str], float]], label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for given, value in samples:
        if label in given:
            sums[given[label]] = sums.get(given[label], 0.0) + value
    return dict(sorted(sums.items()))


def _sum(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) if found else math.nan
