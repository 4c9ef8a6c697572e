"""The report of the re-ranking benchmark: Markdown in which every number was measured in that run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.asking import CANDIDATES, TOP_K, Pair, added, added_by, mebibytes, staged
from landseer.ops.bench.generated_store import Written
from landseer.ops.bench.generator import EACH
from landseer.ops.bench.likeness import SHARES, Likeness
from landseer.ops.bench.serving_report import QUIET, table
from landseer.ops.bench.statistics import MedianEstimate, estimate

MOST_MS = 10.0
"""What re-ranking may add to a search, at the median."""
PAPER_MS = 530
"""The paper's search among a million pictures, on a GPU (Hu and Bors 2020)."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class AskedPairs:
    """All pairs that were asked."""

    warm: Sequence[Pair]
    """Queries that were asked before."""
    fresh: Sequence[Pair]
    """New ones; some of what they read is in memory."""
    cold: Sequence[Pair]
    """New ones, nothing of the store in memory; none where the system does not permit that."""
    why_not_cold: str
    parts: Sequence[tuple[str, float]]
    """Mean ms of each part of a re-ranking, warm."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """How the orchestrator started."""

    seconds: float
    """From its start until it served, the store not in memory before."""
    own: int
    """Bytes of its own memory then, the index above all."""
    most: int
    """Bytes that it had at most, pages of the store among them, which the system takes back when it needs them."""


@dataclass(frozen=True, kw_only=True)
class RerankingReport:
    """All that was measured, and on what."""

    rows: AskedPairs
    likeness: Sequence[Likeness]
    written: Written
    started: Started
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used meanwhile."""
    profile: Profile
    photographs: str
    seed: int
    command: str
    date: datetime
    seconds: float

    def added(self, pairs: Sequence[Pair]) -> MedianEstimate:
        """Return by how many ms the caller waited longer, pair by pair."""
        return estimate(added(pairs), seed=self.seed)

    def staged(self, pairs: Sequence[Pair]) -> MedianEstimate:
        """Return the ms of the orchestrator's stage."""
        return estimate(staged(pairs), seed=self.seed)


def verdict(report: RerankingReport) -> bool:
    """Say whether re-ranking adds no more than it may: at the median, warm, by the caller's clock and by our own.

    By both: the caller's differences are what counts, but lie within the noise of searches that take far longer.
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
        "## The machine\n\n"
        + table(("machine", ""), [*report.machine, ("other programs meanwhile", f"{report.others:.0%} of all cores")]),
        _method(report),
    )
    return "\n\n".join(parts) + "\n"


def _head(report: RerankingReport) -> str:
    found, stage = report.added(report.rows.warm), report.staged(report.rows.warm)
    kept = "kept" if verdict(report) else "**not kept**"
    return (
        "# What co-attention adds to a search\n\n"
        f"Written by `make bench-reranking` on {report.date:%Y-%m-%d %H:%M} UTC; the next run writes it anew.\n"
        f"`{report.command}`,\n{report.seconds / 60:.0f} min, models of {report.profile.backbone}.\n\n"
        f"**With {report.written.entries:,} entries indexed, re-ranking {CANDIDATES} candidates by co-attention adds "
        f"{_interval(found)} ms to a search**\n(median of the differences of {len(report.rows.warm)} pairs, as the "
        f"caller saw them; 95% interval). By the\norchestrator's own clock the stage takes {_interval(stage)} ms. "
        f"Neither may be more than {MOST_MS:.0f} ms: {kept}.\nThe whole search takes "
        f"{_p50(report.rows.warm):.0f} ms, most of which\nis the exact search over all descriptors. The paper's search "
        f"among a million pictures took {PAPER_MS} ms on a GPU." + _noise(report.others)
    )


def _noise(others: float) -> str:
    if others <= QUIET:
        return ""
    return (
        f"\n\n**The machine was not quiet**: other programs used {others:.0%} of its cores. Differences within a pair "
        "bear that better\nthan times do, but run it again on a quiet one before believing either."
    )


def _searches(report: RerankingReport) -> str:
    rows = report.rows
    kinds = (
        ("warm: asked before", rows.warm),
        ("new: never asked before", rows.fresh),
        ("cold: nothing of the store in memory", rows.cold),
    )
    head = ("", "searches", "without, p50 ms", "with, p50 ms", "added ms", "stage `rerank` ms", "p95", "of `search` ms")
    cells = table((*head, "MiB read"), [_search(report, name, pairs) for name, pairs in kinds if pairs])
    asked = _asked(report.profile)
    left_out = f"\n\nCold searches were not measured: {rows.why_not_cold}." if not rows.cold else ""
    return (
        f"## Searches\n\n{cells}\n\n"
        "Added and stage: median, 95% interval. p95 is that of the stage. Of `search`: by how much the first search "
        f"took longer, as\nit looks for {CANDIDATES} and not for {TOP_K}; part of what is added. MiB read: from the "
        f"disk by a search with re-ranking, median; the clusters of {CANDIDATES} candidates are {asked:.1f} MiB, "
        "the rest is what the system reads\naround each page that is not in memory." + _crowded(report) + left_out
    )


def _asked(profile: Profile) -> float:
    """Return the MiB of the clusters of all candidates."""
    return CANDIDATES * profile.sizes.clusters * profile.sizes.reduced * 2 / 2**20


def _crowded(report: RerankingReport) -> str:
    read = float(np.median(mebibytes(report.rows.warm)))
    if read < _asked(report.profile):
        return ""
    return (
        f"\n\n**What was asked before was not in memory again**: such searches read {read:.0f} MiB each. The store is "
        "larger than the memory\nthat is free, and what is read around its pages takes the place of what is needed."
    )


def _search(report: RerankingReport, name: str, pairs: Sequence[Pair]) -> tuple[str, ...]:
    plain, reranked = ([getattr(pair, kind).seconds * 1e3 for pair in pairs] for kind in ("plain", "reranked"))
    return (
        name,
        f"2 x {len(pairs)}",
        f"{np.median(plain):.1f}",
        f"{np.median(reranked):.1f}",
        _interval(report.added(pairs)),
        _interval(report.staged(pairs)),
        f"{np.quantile(staged(pairs), 0.95):.1f}",
        f"{np.median(added_by(pairs, 'search')):+.1f}",
        f"{np.median(mebibytes(pairs)):.1f}",
    )


def _parts(rows: AskedPairs) -> str:
    whole = sum(ms for _, ms in rows.parts)
    cells = [(name, f"{ms:.2f}", f"{ms / whole:.0%}") for name, ms in (*rows.parts, ("sum, the stage", whole))]
    return (
        "## Where the time of re-ranking goes\n\n"
        "Means over the warm searches, by the orchestrator's metrics and Triton's statistics.\n\n"
        + table(("", "ms", "share"), cells)
    )


def _store(report: RerankingReport) -> str:
    written, started = report.written, report.started
    rows = [
        ("entries", f"{written.entries:,}"),
        ("store", f"{written.bytes / GIB:.2f} GiB, {written.bytes / written.entries / 1024:.1f} KiB an entry"),
        ("generated and written in", f"{written.seconds:.0f} s, {written.entries / written.seconds:,.0f} a second"),
        ("start until it serves", f"{started.seconds:.0f} s, nothing of the store in memory before"),
        ("memory of the orchestrator", f"{started.own / GIB:.2f} GiB of its own, the index in fp32 above all"),
        ("at most", f"{started.most / GIB:.2f} GiB, pages of the store among them, which the system can take back"),
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
        "## How like real pictures the entries are\n\n"
        f"Entries are drawn from Gaussians fitted on the descriptions of real pictures ({report.photographs}), {EACH} "
        "of each thing\n(`ops/bench/generator.py`). Quantiles over as many of one as of the other; a million lie "
        "nearer each other, as the last row\nshows. Nothing was searched for among the real ones.\n\n"
        + table(head, [*rows, whole])
    )


def _method(report: RerankingReport) -> str:
    return (
        "## How it was measured\n\n"
        "- Triton and one orchestrator, on loopback; one caller, on the same cores. Queries are ids of entries, so no "
        "picture is\n  described; what is compared is the same search without re-ranking and with it, one right after "
        "the other.\n"
        "- Warm queries take turns in which of the two comes first. Otherwise re-ranking comes first, and pays for "
        "what both read.\n"
        "- Cold: the store's pages are taken out of the orchestrator's memory and of the page cache before each search "
        "(`MADV_PAGEOUT`,\n  `POSIX_FADV_DONTNEED`); what was then read from the disk is the kernel's count.\n"
        f"- Intervals are the percentile bootstrap over pairs, 10,000 draws, seed {report.seed}."
    )


def _p50(pairs: Sequence[Pair]) -> float:
    return float(np.median([pair.reranked.seconds for pair in pairs])) * 1e3


def _interval(found: MedianEstimate) -> str:
    return f"{found.median:.1f} ({found.low:.1f} to {found.high:.1f})"
