"""The report of the index benchmark, in Markdown; every number comes from one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from landseer.ensemble.index.live_index import BATCH
from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.generator import EACH
from landseer.ops.bench.index_trial import IndexCost, TrialPoint
from landseer.ops.bench.likeness import SHARES, Likeness
from landseer.ops.bench.report_parts import machine_table, noise, table

FILTERED = 0.01
"""Share of the vectors that the filter lets through."""
GOAL_SIZE, GOAL_RATE = 1_000_000, 400
"""Searches a second at the target, among so many vectors on two cores: the goal of the project."""
GOAL_FILTERED, GOAL_FILTERED_RECALL = 0.9, 0.99
"""The goal under the filter: searches a second as a share of those without one, and recall."""
MIB = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineRow:
    """One index at one size."""

    cost: IndexCost
    points: Sequence[TrialPoint]
    """By effort."""
    chosen: TrialPoint
    """The one that takes least of those that meet the target; the one that finds most if none does."""
    filtered: TrialPoint
    """The same setting under a filter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SizeRows:
    """All indexes at one size."""

    entries: int
    engines: Sequence[EngineRow]
    left_out: Sequence[str] = ()
    """What could not be measured, and why."""

    def best(self, target: float) -> EngineRow | None:
        """Return the one that takes least of the processor and meets the target; None if none does."""
        good = (row for row in self.engines if row.chosen.recall >= target)
        return min(good, key=lambda row: row.chosen.core_s, default=None)


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """All results of a run, and what it ran on."""

    sizes: Sequence[SizeRows]
    target: float
    queries: int
    neighbourhoods: Sequence[Likeness]
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used during the run."""
    profile: Profile
    photographs: str
    command: str
    date: datetime
    seconds: float
    milvus: str = ""
    """The release of Milvus that was measured, too; empty if none."""


def verdict(report: IndexReport) -> bool:
    """Return whether some index meets the target at each size; at the goal's size, also the goal's rate."""
    found = [(size.entries, size.best(report.target)) for size in report.sizes]
    return all(row is not None and (size < GOAL_SIZE or row.chosen.rate >= GOAL_RATE) for size, row in found)


def markdown(report: IndexReport) -> str:
    """Return the whole report."""
    parts = (
        _head(report),
        *(_size(report, size) for size in report.sizes),
        _growth(report),
        _likeness(report),
        "## The machine\n\n" + machine_table(report.machine, report.others),
        _method(report),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: IndexReport) -> str:
    lines = []
    for size in report.sizes:
        row = size.best(report.target)
        told = f"no index found {report.target}" if row is None else _told(row)
        lines.append(f"- **{size.entries:,} vectors**: {told}")
    return (
        "# Indexes beside exact search\n\n"
        f"Written by `make bench-index` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`,\n{report.seconds / 60:.0f} min, vectors of {report.profile.sizes.channels} values as "
        f"{report.profile.backbone} makes them.\n\n"
        f"What takes least of the processor among all that find recall@10 ≥ {report.target}:\n\n"
        + "\n".join(lines)
        + "\n\n"
        f"{_goal(report)}{_milvus(report)}" + noise(report.others)
    )


def _goal(report: IndexReport) -> str:
    filtered = (
        f"\n\nThe goal under a filter that lets {FILTERED:.0%} through, recall ≥ {GOAL_FILTERED_RECALL} and at least "
        f"{GOAL_FILTERED} of the searches a second\nwithout it: {_filtered_goal(report)}."
    )
    goal = f"The goal, {GOAL_RATE} searches a second among {GOAL_SIZE:,}"
    if max(size.entries for size in report.sizes) >= GOAL_SIZE:
        return f"{goal}: {'met' if verdict(report) else 'not met'}.{filtered}"
    return f"{goal} vectors, was not measured in this run.{filtered}"


def _filtered_goal(report: IndexReport) -> str:
    """Return whether the best index of each size meets the goal under the filter."""
    told = []
    for size in report.sizes:
        if row := size.best(report.target):
            share = row.filtered.rate / row.chosen.rate
            met = share >= GOAL_FILTERED and row.filtered.recall >= GOAL_FILTERED_RECALL
            told.append(f"{'met' if met else 'not met'} among {size.entries:,} ({share:.2f})")
    return ", ".join(told) or "not measured, as no index met the target"


def _milvus_method() -> str:
    return (
        "\n- Milvus runs in a process of its own: the processor time of both is counted, also what Milvus does while "
        "nobody\n  searches. Its bytes are its whole folder, its own MiB its whole process, its start from `kill -9` "
        "to the\n  first answer. Its build is upserting, sealing and indexing."
    )


def _milvus(report: IndexReport) -> str:
    if report.milvus:
        return f"\n\nMilvus is {report.milvus} standalone from PyPI, called through pymilvus as the server calls it."
    return " Milvus was not measured (`--milvus`)."


def _told(row: EngineRow) -> str:
    point = row.chosen
    return (
        f"{_named(row)}: recall {point.recall:.4f}, {1e3 * point.core_s:.2f} ms of a core a search, "
        f"{point.rate:,.0f} searches a second in this run.\n  Under a filter that lets {FILTERED:.0%} through: recall "
        f"{row.filtered.recall:.4f}, {1e3 * row.filtered.core_s:.2f} ms of a core, {row.filtered.rate:,.0f} a second"
    )


def _named(row: EngineRow) -> str:
    setting = row.chosen.setting
    effort = f", effort {setting.effort}" if setting.effort else ""
    return f"`{row.cost.name}`{effort}, {setting.rescored} rescored a hit"


def _size(report: IndexReport, size: SizeRows) -> str:
    head = (
        "index",
        "effort",
        "rescored a hit",
        "recall@10",
        "core ms",
        "searches/s",
        "one alone, ms",
        f"recall at {FILTERED:.0%}",
        f"core ms at {FILTERED:.0%}",
        f"searches/s at {FILTERED:.0%}",
        "build s",
        "bytes a vector",
        "own MiB",
        "start ms",
    )
    rows = [_engine(row) for row in size.engines]
    curves = [(row.cost.name, _curve(row.points)) for row in size.engines if len(row.points) > 1]
    return (
        f"## {size.entries:,} vectors\n\n"
        f"Each with the setting that takes least and finds {report.target}, or finds most.\n\n{table(head, rows)}\n\n"
        f"All efforts, as effort: recall@10, ms of a core.\n\n{table(('index', 'curve'), curves)}"
        + "".join(f"\n\nLeft out: {why}." for why in size.left_out)
    )


def _engine(row: EngineRow) -> tuple[str, ...]:
    point, cost = row.chosen, row.cost
    return (
        f"`{cost.name}`",
        str(point.setting.effort or ""),
        str(point.setting.rescored),
        f"{point.recall:.4f}",
        f"{1e3 * point.core_s:.2f}",
        f"{point.rate:,.0f}",
        f"{1e3 * point.median_s:.2f}",
        f"{row.filtered.recall:.4f}",
        f"{1e3 * row.filtered.core_s:.2f}",
        f"{row.filtered.rate:,.0f}",
        f"{cost.seconds:,.1f}",
        f"{cost.bytes / cost.size:,.0f}",
        f"{cost.own_bytes / MIB:,.1f}",
        f"{1e3 * cost.start_s:,.0f}",
    )


def _curve(points: Sequence[TrialPoint]) -> str:
    return "; ".join(f"{point.setting.effort}: {point.recall:.4f}, {1e3 * point.core_s:.2f}" for point in points)


def _growth(report: IndexReport) -> str:
    """Return how the cost of a search grows with the size, for the indexes that were measured at several."""
    if len(report.sizes) < 2:
        return ""
    first, last = report.sizes[0], report.sizes[-1]
    before = {_kind(row): row for row in first.engines}
    rows = [
        (_kind(row), *(f"{1e3 * one.chosen.core_s:.2f}" for one in (before[_kind(row)], row)), _ratio(before, row))
        for row in last.engines
        if _kind(row) in before
    ]
    head = ("index", f"core ms, {first.entries:,}", f"{last.entries:,}", "ratio")
    return (
        f"## From {first.entries:,} to {last.entries:,}\n\n"
        f"Processor time of a search, each with its setting at its size.\n\n{table(head, rows)}"
    )


def _kind(row: EngineRow) -> str:
    """Return the factory string without the number of lists, which depends on the size."""
    return re.sub(r"IVF\d+", "IVF", row.cost.name)


def _ratio(before: Mapping[str, EngineRow], after: EngineRow) -> str:
    return f"{after.chosen.core_s / before[_kind(after)].chosen.core_s:.1f}"


def _likeness(report: IndexReport) -> str:
    head = ("", "", *(f"{share:.0%}" for share in SHARES))
    rows = [
        (name, kind, *(f"{value:.3f}" for value in values))
        for one in report.neighbourhoods
        for name, kind, values in ((one.name, "real", one.real), ("", "generated", one.generated))
    ]
    return (
        "## How similar the vectors are to real ones\n\n"
        f"Vectors are drawn from Gaussians fitted on real pictures ({report.photographs}), {EACH} of each\nthing "
        "(`ops/bench/generator.py`). Quantiles over equally many of both. The dimension is the maximum-likelihood "
        "estimate of\nLevina and Bickel (2004): the higher it is, the harder it is to find neighbours without looking "
        f"at all.\n\n{table(head, rows)}"
    )


def _method(report: IndexReport) -> str:
    return (
        "## How it was measured\n\n"
        f"- {report.queries} vectors of the store are held out: they are the queries, and no index has them. The truth "
        "is exact search.\n"
        "- Entries of that store have descriptors, and no clusters, boxes and local features, which no index reads.\n"
        "- A search is what the server does for one: candidates from the mapped index, their vectors from the store "
        "(LMDB, with\n  checksums), their scores in fp64. So hits have the scores of exact search.\n"
        "- Core ms: processor time of a search, all threads, so that other programs matter little. It is what decides "
        "which setting\n  is shown.\n"
        f"- Searches a second: {BATCH} at a time, as the server groups those that wait; the median of three rounds. "
        "One alone:\n  the median.\n"
        f"- The filter lets a random {FILTERED:.0%} through, the same for all queries.\n"
        "- Own MiB and start: of a process that maps the files, which were just written, and searches once (RssAnon).\n"
        "- Build: training and adding, without reading the truth." + ("" if not report.milvus else _milvus_method())
    )
