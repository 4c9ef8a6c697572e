"""The report of the re-ranking benchmark, in Markdown; every number comes from one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.asking import CANDIDATES, TOP_K, AnswerPair, added, added_by, mebibytes, staged
from landseer.ops.bench.generated_store import WrittenStore
from landseer.ops.bench.generator import EACH
from landseer.ops.bench.likeness import SHARES, Likeness
from landseer.ops.bench.report_parts import interval, machine_table, noise, table
from landseer.ops.bench.statistics import MedianEstimate, estimate

MOST_MS = 10.0
"""Limit of the median time that re-ranking adds to a warm search."""
PAPER_MS = 530
"""The paper's search among a million pictures on a GPU (Hu and Bors 2020)."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class AskedPairs:
    """All pairs of searches."""

    warm: Sequence[AnswerPair]
    """Queries that were searched before."""
    fresh: Sequence[AnswerPair]
    """New queries; part of what they read is in memory."""
    cold: Sequence[AnswerPair]
    """New queries with nothing of the store in memory; empty if the system does not permit eviction."""
    why_not_cold: str
    parts: Sequence[tuple[str, float]]
    """Mean ms of each part of a re-ranking, warm."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The orchestrator's start."""

    seconds: float
    """Until it serves, with nothing of the store in memory before."""
    own: int
    """Bytes of its own memory then, mostly the index."""
    most: int
    """Peak bytes, including pages of the store, which the system can reclaim."""


@dataclass(frozen=True, kw_only=True)
class RerankingReport:
    """All results of a run, and what it ran on."""

    rows: AskedPairs
    likeness: Sequence[Likeness]
    written: WrittenStore
    started: Started
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used during the run."""
    profile: Profile
    photographs: str
    seed: int
    command: str
    date: datetime
    seconds: float

    def added(self, pairs: Sequence[AnswerPair]) -> MedianEstimate:
        """Return how many ms longer the caller waited, pair by pair."""
        return estimate(added(pairs), seed=self.seed)

    def staged(self, pairs: Sequence[AnswerPair]) -> MedianEstimate:
        """Return the ms of the stage, measured by the orchestrator."""
        return estimate(staged(pairs), seed=self.seed)


def verdict(report: RerankingReport) -> bool:
    """Return whether re-ranking meets its limit: the median over warm searches, by both clocks.

    The caller's differences are what counts, but they lie within the noise of searches that take far longer; so the
    orchestrator's own measurement must meet the limit too.
    """
    warm = report.rows.warm
    return max(report.added(warm).median, report.staged(warm).median) <= MOST_MS


def markdown(report: RerankingReport) -> str:
    """Return the whole report."""
    parts = (
        _head(report),
        _searches(report),
        _parts(report.rows),
        _store(report),
        _likeness(report),
        "## The machine\n\n" + machine_table(report.machine, report.others),
        _method(report),
    )
    return "\n\n".join(parts) + "\n"


def _head(report: RerankingReport) -> str:
    rows = report.rows
    new, warm = (f"**{interval(report.added(some), 1)} ms**" for some in (rows.fresh, rows.warm))
    passed = "passed" if verdict(report) else "**not passed**"
    return (
        "# What co-attention adds to a search\n\n"
        f"Written by `make bench-reranking` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`,\n{report.seconds / 60:.0f} min, models of {report.profile.backbone}.\n\n"
        f"With {report.written.entries:,} entries indexed, re-ranking {CANDIDATES} candidates by co-attention adds "
        f"{new} to a search with a new query\nand {warm} to one with a warm query (median of {len(rows.fresh)} and "
        f"{len(rows.warm)} pairs, measured by the caller; 95% interval).\nBy the orchestrator's clock, the stage takes "
        f"{interval(report.staged(rows.fresh), 1)} and {interval(report.staged(rows.warm), 1)} ms. Limit for warm "
        f"queries, by both\nclocks: {MOST_MS:.0f} ms: {passed}. The whole search takes {_p50(rows.fresh):.0f} and "
        f"{_p50(rows.warm):.0f} ms, most of it the exact search over all descriptors.\nThe paper's search among a "
        f"million pictures took {PAPER_MS} ms on a GPU." + noise(report.others)
    )


def _searches(report: RerankingReport) -> str:
    rows = report.rows
    kinds = (
        ("warm: searched before", rows.warm),
        ("new: never searched before", rows.fresh),
        ("cold: nothing of the store in memory", rows.cold),
    )
    head = (
        "",
        "searches",
        "without, p50 ms",
        "with, p50 ms",
        "added ms",
        "stage `rerank` ms",
        "p95",
        "added in `search` ms",
    )
    cells = table((*head, "MiB read"), [_search(report, name, pairs) for name, pairs in kinds if pairs])
    asked = _asked(report.profile)
    left_out = f"\n\nCold searches were not measured: {rows.why_not_cold}." if not rows.cold else ""
    return (
        f"## Searches\n\n{cells}\n\n"
        "Added and stage: median, 95% interval. p95 is that of the stage. Added in `search`: how much longer the first "
        f"search takes,\nbecause it returns {CANDIDATES} instead of {TOP_K}; it is part of `added`. MiB read: median "
        f"per search with re-ranking, from the disk. The clusters\nof {CANDIDATES} candidates are {asked:.1f} MiB; the "
        "rest is read-ahead around each page that is not in memory." + _crowded(report) + left_out
    )


def _asked(profile: Profile) -> float:
    """Return the MiB of all candidates' clusters."""
    return CANDIDATES * profile.sizes.clusters * profile.sizes.reduced * 2 / 2**20


def _crowded(report: RerankingReport) -> str:
    read = float(np.median(mebibytes(report.rows.warm)))
    if read < _asked(report.profile):
        return ""
    return (
        f"\n\n**Warm queries did not find their data in memory**: they read {read:.0f} MiB each. The store is larger "
        "than the free memory,\nand read-ahead evicts pages that are needed."
    )


def _search(report: RerankingReport, name: str, pairs: Sequence[AnswerPair]) -> tuple[str, ...]:
    plain, reranked = ([getattr(pair, kind).seconds * 1e3 for pair in pairs] for kind in ("plain", "reranked"))
    return (
        name,
        f"2 x {len(pairs)}",
        f"{np.median(plain):.1f}",
        f"{np.median(reranked):.1f}",
        interval(report.added(pairs), 1),
        interval(report.staged(pairs), 1),
        f"{np.quantile(staged(pairs), 0.95):.1f}",
        f"{np.median(added_by(pairs, 'search')):+.1f}",
        f"{np.median(mebibytes(pairs)):.1f}",
    )


def _parts(rows: AskedPairs) -> str:
    whole = sum(ms for _, ms in rows.parts)
    cells = [(name, f"{ms:.2f}", f"{ms / whole:.0%}") for name, ms in (*rows.parts, ("sum, the stage", whole))]
    return (
        "## Where the time of re-ranking goes\n\n"
        "Means over the warm searches, from the orchestrator's metrics and Triton's statistics.\n\n"
        + table(("", "ms", "share"), cells)
    )


def _store(report: RerankingReport) -> str:
    written, started = report.written, report.started
    rows = [
        ("entries", f"{written.entries:,}"),
        ("store", f"{written.bytes / GIB:.2f} GiB, {written.bytes / written.entries / 1024:.1f} KiB per entry"),
        ("generated and written in", f"{written.seconds:.0f} s, {written.entries / written.seconds:,.0f} per second"),
        ("start", f"{started.seconds:.0f} s until it serves, with nothing of the store in memory before"),
        ("memory of the orchestrator", f"{started.own / GIB:.2f} GiB of its own, mostly the index in fp32"),
        ("peak", f"{started.most / GIB:.2f} GiB, including pages of the store, which the system can reclaim"),
    ]
    return "## Store and start\n\n" + table(("", ""), rows)


def _likeness(report: RerankingReport) -> str:
    head = ("cosines", "", *(f"{share:.0%}" for share in SHARES))
    rows = [
        (name, kind, *(f"{value:.3f}" for value in values))
        for one in report.likeness
        for name, kind, values in ((one.name, "real", one.real), ("", "generated", one.generated))
    ]
    best = np.quantile([pair.plain.best for pair in (*report.rows.warm, *report.rows.fresh)], SHARES)
    whole = ("first hit among all entries", "generated", *(f"{value:.3f}" for value in best))
    return (
        "## How similar the entries are to real pictures\n\n"
        f"Entries are drawn from Gaussians fitted on the records of real pictures ({report.photographs}), {EACH} per "
        "thing\n(`ops/bench/generator.py`). Quantiles over equally many of both; a million entries lie closer to each "
        "other, as the last row\nshows. The real pictures were not searched.\n\n" + table(head, [*rows, whole])
    )


def _method(report: RerankingReport) -> str:
    return (
        "## How it was measured\n\n"
        "- Triton, one orchestrator and one caller share the cores of one machine. Queries are ids of entries, so no "
        "picture is\n  described. Each pair is the same search without re-ranking and with it, one right after the "
        "other.\n"
        "- Warm queries alternate which of the two comes first. Otherwise re-ranking comes first and pays for what "
        "both read.\n"
        "- Cold: before each search the store's pages are evicted from the orchestrator's memory and the page cache "
        "(`MADV_PAGEOUT`,\n  `POSIX_FADV_DONTNEED`). The kernel counts the bytes read from the disk.\n"
        f"- Intervals are the percentile bootstrap over pairs, 10,000 draws, seed {report.seed}."
    )


def _p50(pairs: Sequence[AnswerPair]) -> float:
    return float(np.median([pair.reranked.seconds for pair in pairs])) * 1e3
