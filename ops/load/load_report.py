"""The report of a load test, in Markdown; every number comes from one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from landseer.ops.bench.report_parts import table
from landseer.ops.load.k6 import K6Figures
from landseer.ops.load.locust_run import AGGREGATED, LoadFigures
from landseer.ops.watch.queries import PanelQuery

SATURATED = 0.95
"""The saturation point is the smallest number of users with this share of the best throughput."""
COUNTS_AGREE = 0.05
"""Maximum relative difference between the rates of locust and Prometheus."""
OPINIONS_AGREE = 0.10
"""Maximum relative difference between the rates of locust and k6."""
WRONG = "WRONG_HIT"
"""The locustfile's error for an indexed picture that is not among its own best hits."""


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """Results for one number of users."""

    users: int
    rate: float
    """Calls per second, measured by locust."""
    p50_ms: float
    """Of Search, measured by the server."""
    p95_ms: float
    waiting: float
    """Average number of searches waiting for Triton."""


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Turns of locust and k6 with the same calls."""

    users: int
    locust: Sequence[LoadFigures]
    k6: Sequence[K6Figures]

    @property
    def ratio(self) -> float:
        """Median over the turns of k6's throughput divided by locust's."""
        pairs = zip(self.k6, self.locust, strict=True)
        return float(np.median([theirs.rate / ours.total.rate for theirs, ours in pairs]))


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """All results of a run, and what it ran on."""

    shape: str
    peak: int
    figures: LoadFigures
    steps: Sequence[LoadStep]
    counted: float
    """Searches counted by Prometheus over the same time."""
    panels: Mapping[PanelQuery, int]
    """Number of series that each query of the dashboards returned."""
    duel: Duel | None
    machine: Sequence[tuple[str, str]]
    photos: int
    command: str
    date: datetime
    seconds: float

    @property
    def saturation(self) -> LoadStep:
        """The step with the fewest users that reaches `SATURATED` of the best throughput."""
        best = max(step.rate for step in self.steps)
        return next(step for step in self.steps if step.rate >= SATURATED * best)


def verdict(report: LoadReport) -> bool:
    """Return whether the independent counts agree, every panel has data and no answer was wrong."""
    counts = abs(report.figures.searches / report.counted - 1) <= COUNTS_AGREE
    opinions = report.duel is None or abs(report.duel.ratio - 1) <= OPINIONS_AGREE
    return counts and opinions and all(report.panels.values()) and WRONG not in report.figures.failures


def markdown(report: LoadReport) -> str:
    """Return the whole report."""
    parts = [_head(report), _tasks(report), _errors(report), _steps(report), _counts(report)]
    parts.append(_panels(report))
    if report.duel is not None:
        parts.append(_second_opinion(report.duel))
    parts += [table(("machine", ""), report.machine), _method(report)]
    return "\n\n".join(parts) + "\n"


def _head(report: LoadReport) -> str:
    total = report.figures.total
    return (
        "# Load test\n\n"
        f"Written by `make load` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`, {report.seconds:.0f} s.\n\n"
        f"**{total.rate:.1f} calls per second** over the whole plan ({report.shape}, up to {report.peak} users): p50 "
        f"{total.p50_ms:.0f} ms, p95 {total.p95_ms:.0f} ms, p99 {total.p99_ms:.0f} ms;\n"
        f"{total.failures} of {total.calls} failed."
    )


def _tasks(report: LoadReport) -> str:
    rows = [
        (
            "all" if name == AGGREGATED else name,
            str(one.calls),
            f"{one.rate:.2f}",
            *(f"{ms:.0f}" for ms in (one.p50_ms, one.p95_ms, one.p99_ms)),
            str(one.failures),
        )
        for name, one in report.figures.tasks.items()
    ]
    return "## By kind of call\n\n" + table(("", "calls", "calls/s", "p50 ms", "p95 ms", "p99 ms", "failed"), rows)


def _errors(report: LoadReport) -> str:
    if not report.figures.failures:
        return "No call failed, and every whole picture was its own best hit or tied with the best."
    return table(("error", "calls"), [(code, str(count)) for code, count in report.figures.failures.items()])


def _steps(report: LoadReport) -> str:
    rows = [
        (str(step.users), f"{step.rate:.2f}", f"{step.p50_ms:.0f}", f"{step.p95_ms:.0f}", f"{step.waiting:.1f}")
        for step in report.steps
    ]
    found = report.saturation
    said = (
        f"\n\n**Saturation at users = {found.users}: {found.rate:.1f} calls per second**, the fewest users that reach "
        f"{SATURATED:.0%} of the best throughput. More users only wait longer."
        if len(report.steps) > 1
        else ""
    )
    head = ("users", "calls/s", "p50 ms of Search", "p95 ms of Search", "searches waiting")
    return "## By number of users\n\n" + table(head, rows) + said


def _counts(report: LoadReport) -> str:
    ratio, seconds = report.figures.searches / report.counted, report.figures.seconds
    agrees = "they agree" if abs(ratio - 1) <= COUNTS_AGREE else "**they do not agree**"
    return (
        "## Two independent counts\n\n"
        f"Searches per second over the whole plan, {seconds:.0f} s: {report.figures.searches / seconds:.3f} by locust, "
        f"{report.counted / seconds:.3f} by Prometheus, ratio {ratio:.3f};\n{agrees} (within {COUNTS_AGREE:.0%})."
    )


def _panels(report: LoadReport) -> str:
    empty = [
        f"{query.board}, {query.panel}: `{query.expression}`" for query, found in report.panels.items() if not found
    ]
    said = (
        "All of them returned data." if not empty else "**Without data:**\n\n" + "\n".join(f"- {one}" for one in empty)
    )
    panels = len({(query.board, query.panel) for query in report.panels})
    return (
        "## The dashboards\n\n"
        f"All {len(report.panels)} queries of the {panels} panels in `ops/grafana/dashboards` were sent to Prometheus\n"
        f"right after the load. {said}\nThe dashboards were checked against Grafana's data model and by these queries, "
        "not in a running Grafana."
    )


def _second_opinion(duel: Duel) -> str:
    rows = [
        (
            str(turn + 1),
            f"{ours.total.rate:.2f}",
            f"{theirs.rate:.2f}",
            f"{theirs.rate / ours.total.rate:.3f}",
            f"{ours.total.p50_ms:.0f}",
            f"{theirs.p50_ms:.0f}",
        )
        for turn, (ours, theirs) in enumerate(zip(duel.locust, duel.k6, strict=True))
    ]
    agrees = "they agree" if abs(duel.ratio - 1) <= OPINIONS_AGREE else "**they do not agree**"
    return (
        "## A second opinion\n\n"
        f"k6 and locust in turns, each with {duel.users} users that search with a picture and wait for the answer. "
        f"Median ratio of the throughputs {duel.ratio:.3f}; {agrees}\n(within {OPINIONS_AGREE:.0%}).\n\n"
        + table(("turn", "locust calls/s", "k6 calls/s", "ratio", "locust p50 ms", "k6 p50 ms"), rows)
    )


def _method(report: LoadReport) -> str:
    return (
        "## How it was measured\n\n"
        f"- {report.photos} JPEG files, made from the demo's photographs, are indexed and searched. Locust, "
        "Prometheus and the\n  servers share the cores.\n"
        "- Each user waits for an answer before the next call. p50, p95 and p99 by kind of call are measured by the "
        "callers; those by\n  number of users come from `grpc_server_handling_seconds` in Prometheus.\n"
        "- The weights in `ops/locustfile.py` set how often each kind of call is made.\n"
        "- The server runs with `--refuse-after 60`, so that calls wait; by default it refuses what would wait long\n"
        "  ([overload](overload.md))."
    )
