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
from landseer.ops.bench.statistics import MedianEstimate, Round, estimate, latency
from landseer.ops.bench.whole_search import CALLERS, WayTimes

MOST_MS = 10.0
"""Limit of the median time that co-attention adds to a warm search."""
MOST_ALONE_MS, MOST_TOGETHER_MS = 60.0, 250.0
"""Limits of a whole search: of the median by one caller, and of p99 by `CALLERS` at once."""
MOST_START_S, MOST_OWN_GIB = 5.0, 2.0
"""Limits of the start, and of the process's own memory (RssAnon)."""
PAPER_MS = 530
"""The paper's search among a million pictures on a GPU (Hu and Bors 2020)."""
GIB = 2**30
STAGES = ("search", "words", "expand", "research", "rerank", "via", "store")


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
    """Until it serves, with index versions, and nothing of the store or of them in memory before."""
    own: int
    """Bytes of its own memory then."""
    most: int
    """Peak bytes, including mapped pages, which the system can reclaim."""


@dataclass(frozen=True, kw_only=True)
class RerankingReport:
    """All results of a run, and what it ran on."""

    rows: AskedPairs
    ways: Sequence[WayTimes]
    likeness: Sequence[Likeness]
    written: WrittenStore
    started: Started
    own: int
    """Bytes of the orchestrator's own memory after all searches."""
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


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Something that was measured, and its limit."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit


def goals(report: RerankingReport) -> list[Goal]:
    """Return all goals.

    What co-attention adds must be within its limit by both clocks. The caller's differences are what counts, but they
    lie within the noise of searches that take far longer.
    """
    warm = report.rows.warm
    added = max(report.added(warm).median, report.staged(warm).median)
    own = max(report.started.own, report.own) / GIB
    whole = [one for one in report.ways if one.way.whole]
    alone = [(f"{one.way.name}: p50, one caller", _ms(one.alone, 0.5), MOST_ALONE_MS) for one in whole]
    many = [(f"{one.way.name}: p99, {CALLERS} callers", _ms(one.together, 0.99), MOST_TOGETHER_MS) for one in whole]
    times = [*alone, *many, ("co-attention adds, by both clocks", added, MOST_MS)]
    return [
        *(Goal(name=name, value=value, limit=limit, unit="ms") for name, value, limit in times),
        Goal(name="start", value=report.started.seconds, limit=MOST_START_S, unit="s"),
        Goal(name="RssAnon of the orchestrator", value=own, limit=MOST_OWN_GIB, unit="GiB"),
    ]


def verdict(report: RerankingReport) -> bool:
    """Return whether all goals are met."""
    return all(goal.met for goal in goals(report))


def markdown(report: RerankingReport) -> str:
    """Return the whole report."""
    parts = (
        _head(report),
        _whole(report),
        _stages(report),
        _added(report),
        _searches(report),
        _parts(report.rows),
        _store(report),
        _likeness(report),
        "## The machine\n\n" + machine_table(report.machine, report.others),
        _method(report),
    )
    return "\n\n".join(parts) + "\n"


def _head(report: RerankingReport) -> str:
    rows = [
        (
            goal.name,
            f"{goal.value:.1f} {goal.unit}",
            f"{goal.limit:.0f} {goal.unit}",
            "met" if goal.met else "**not met**",
        )
        for goal in goals(report)
    ]
    return (
        f"# Whole searches among {report.written.entries:,} entries\n\n"
        f"Written by `make bench-reranking` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`,\n{report.seconds / 60:.0f} min, models of {report.profile.backbone}.\n\n"
        + table(("goal", "measured", "limit", ""), rows)
        + noise(report.others)
    )


def _whole(report: RerankingReport) -> str:
    head = (
        "asked for, by id",
        "searches",
        "first, p50 ms",
        "p50 ms",
        "p99 ms",
        f"p50 ms, {CALLERS} callers",
        "p99 ms",
        "a second",
        "compared",
        "same thing",
    )
    written = report.written
    return (
        "## By one caller, and by four at once\n\n"
        + table(head, [_way(one) for one in report.ways])
        + "\n\nFirst: the same searches with nothing of the store in memory before the first of them"
        + ("." if all(one.first for one in report.ways) else f"; not measured: {report.rows.why_not_cold}.")
        + " Compared: candidates that\nwere verified, of a search on average; same thing: those that keypoints are "
        "sure of. A request has one re-ranking:\nverification by keypoints, the default, or co-attention; so each is "
        "measured with an expansion.\n\n"
        f"All {written.entries:,} entries have words, {written.featured:,} have keypoints and patches: the queries and "
        "the nearest of each.\nThose of all would take another 30 GiB. Candidates that have none are not compared."
    )


def _way(one: WayTimes) -> tuple[str, ...]:
    verified = one.verified
    return (
        one.way.name,
        f"{len(one.alone.latencies):,} + {len(one.together.latencies):,}",
        "" if one.first is None else f"{_ms(one.first, 0.5):.1f}",
        f"{_ms(one.alone, 0.5):.1f}",
        f"{_ms(one.alone, 0.99):.1f}",
        f"{_ms(one.together, 0.5):.1f}",
        f"{_ms(one.together, 0.99):.1f}",
        f"{one.together.throughput:.1f}",
        "" if verified is None else f"{verified.compared:.0f}",
        "" if verified is None else f"{verified.same:.0f}",
    )


def _stages(report: RerankingReport) -> str:
    cells = [
        (
            one.way.name,
            *(f"{one.stages[stage] * 1e3:.1f}" if stage in one.stages else "" for stage in STAGES),
            f"{one.stages['total'] * 1e3:.1f}",
            f"{np.mean(one.alone.latencies) * 1e3:.1f}",
        )
        for one in report.ways
    ]
    return (
        "## Where the time of a search goes\n\n"
        "Mean ms by one caller, by the orchestrator's clock, and the caller's.\n\n"
        + table(("", *(f"`{stage}`" for stage in STAGES), "total", "caller"), cells)
        + "\n\n`words` runs beside `search`; `expand` and `research` follow `rerank` where verified hits expand the "
        "query."
    )


def _ms(some: Round, share: float) -> float:
    return latency([some], share) * 1e3


def _added(report: RerankingReport) -> str:
    rows = report.rows
    new, warm = (f"**{interval(report.added(some), 1)} ms**" for some in (rows.fresh, rows.warm))
    return (
        "## What co-attention adds\n\n"
        f"Re-ranking {CANDIDATES} candidates by co-attention adds {new} to a search with a new query\nand {warm} to "
        f"one with a warm query (median of {len(rows.fresh)} and {len(rows.warm)} pairs, measured by the caller; 95% "
        f"interval).\nBy the orchestrator's clock, the stage takes {interval(report.staged(rows.fresh), 1)} and "
        f"{interval(report.staged(rows.warm), 1)} ms. The whole search takes {_p50(rows.fresh):.0f} and "
        f"{_p50(rows.warm):.0f} ms.\nThe paper's search among a million pictures took {PAPER_MS} ms on a GPU."
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
        f"{cells}\n\n"
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
        "## Where the time of co-attention goes\n\n"
        "Means over the warm searches, from the orchestrator's metrics and Triton's statistics.\n\n"
        + table(("", "ms", "share"), cells)
    )


def _store(report: RerankingReport) -> str:
    written, started = report.written, report.started
    rows = [
        ("entries", f"{written.entries:,}"),
        ("store", f"{written.bytes / GIB:.2f} GiB, {written.bytes / written.entries / 1024:.1f} KiB per entry"),
        ("entries with keypoints and patches", f"{written.featured:,}"),
        ("generated and written in", f"{written.seconds:.0f} s, {written.entries / written.seconds:,.0f} per second"),
        (
            "start",
            f"{started.seconds:.1f} s until it serves, with versions of index and words, and nothing of the store or "
            "of them in memory before",
        ),
        (
            "memory of the orchestrator",
            f"{started.own / GIB:.2f} GiB of its own (RssAnon) then, {report.own / GIB:.2f} GiB after all searches",
        ),
        (
            "peak while it started",
            f"{started.most / GIB:.2f} GiB, including mapped pages, which the system can reclaim",
        ),
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
        "- Triton, one orchestrator and the callers share the cores of one machine. The index is the server's default. "
        "Searches begin\n  when it has checked all bytes of its files, some time after its start. Queries are ids of "
        "entries, so no picture is\n  described. Whole searches ask for the same ids in each way; callers at once "
        "share one client, and take the next id when\n  they are free.\n"
        "- Entries of one thing share keypoints and patches of real pictures, some of them in place "
        "(`ops/bench/generated_features.py`).\n"
        "- What co-attention adds: each pair is the same global search without it and with it, one right after the "
        "other.\n"
        "- Warm queries alternate which of the two comes first. Otherwise re-ranking comes first and pays for what "
        "both read.\n"
        "- Cold and first: before each search, or once for each way, the store's pages are evicted from the "
        "orchestrator's memory\n  and the page cache (`MADV_PAGEOUT`, `POSIX_FADV_DONTNEED`). The kernel counts the "
        "bytes read from the disk.\n"
        f"- Intervals are the percentile bootstrap over pairs, 10,000 draws, seed {report.seed}."
    )


def _p50(pairs: Sequence[AnswerPair]) -> float:
    return float(np.median([pair.reranked.seconds for pair in pairs])) * 1e3
