"""The report of the serving benchmark, in Markdown; every number comes from one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from landseer.ops.bench.breakdown import Breakdown, Counters
from landseer.ops.bench.contest import MANY, Contest
from landseer.ops.bench.pictures import Picture
from landseer.ops.bench.report_parts import interval, machine_table, noise, table
from landseer.ops.bench.statistics import MedianEstimate, Round, estimate, latency, ranked, ratios, throughputs


@dataclass(frozen=True, kw_only=True)
class ServingReport:
    """All results of a run, and what it ran on."""

    contests: tuple[Contest, ...]
    """The verdict is about the first."""
    rounds: Mapping[str, Sequence[Round]]
    batched: Counters
    """Triton's counters over the turns with many callers."""
    parts: Breakdown
    eager: Round | None
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used during the run."""
    backbone: str
    precision: str
    agreement: float
    pictures: Sequence[Picture]
    at_least: float
    seed: int
    command: str
    date: datetime
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ServingOutcome:
    """How the slowest served contender compares with running in process."""

    baseline: str
    """In process the way Triton runs it: one picture at a time on all cores."""
    served: str
    ratio: MedianEstimate
    """Served to baseline: the cost of serving itself."""
    rival: str
    """The fastest way in process, however it uses the cores."""
    to_rival: MedianEstimate
    """Served to rival: the cost of serving, and of running one picture at a time."""


def outcome(report: ServingReport, contest: Contest) -> ServingOutcome:
    """Compare the slowest served contender with the same way in process and with the fastest way in process."""
    baseline = contest.direct[0].name
    rival = ranked(report.rounds, [one.name for one in contest.direct], against=baseline)[0]
    served = ranked(report.rounds, [one.name for one in contest.served], against=baseline)[-1]
    return ServingOutcome(
        baseline=baseline,
        served=served,
        ratio=_ratio(report, served, baseline),
        rival=rival,
        to_rival=_ratio(report, served, rival),
    )


def verdict(report: ServingReport) -> bool:
    """Return whether serving reaches the required share of the throughput."""
    return outcome(report, report.contests[0]).ratio.median >= report.at_least


def markdown(report: ServingReport) -> str:
    """Return the whole report."""
    parts = (
        _head(report),
        machine_table(report.machine, report.others),
        *(_contest(report, contest) for contest in report.contests),
        _meaning(report),
        _scale(report),
        _breakdown(report.parts),
        _batches(report.batched),
        _method(report),
    )
    return "\n\n".join(parts) + "\n"


def _head(report: ServingReport) -> str:
    found, whole = (outcome(report, contest) for contest in report.contests)
    passed = "passed" if verdict(report) else "**not passed**"
    summary = table(
        ("throughput of serving, relative to", "the same way in process", "the fastest way in process"),
        [
            (
                "pixels → vectors: Triton's `describe`",
                f"**{interval(found.ratio, 3)}**",
                f"**{interval(found.to_rival, 3)}**",
            ),
            ("JPEG → hits: `Search`", f"**{interval(whole.ratio, 3)}**", f"**{interval(whole.to_rival, 3)}**"),
        ],
    )
    return (
        "# What serving costs\n\n"
        f"Written by `make bench-serving` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`, {report.seconds:.0f} s, backbone {report.backbone} in {report.precision}.\n\n"
        f"{summary}\n\n"
        f"Median over the rounds and 95% interval, for the slower number of callers ({_callers(found)}; "
        f"{_callers(whole)}).\n"
        "The same way in process means one picture at a time on all cores, as Triton runs it. The fastest way is "
        f"{found.rival}\nfor pixels, {whole.rival} for searches. Limit: `describe` reaches {report.at_least:.2f} of "
        f"the same way in process: {passed}.\n\n"
        f"Served and in-process descriptors of all {len(report.pictures)} pictures have a cosine of "
        f"at least {_floor(report.agreement)}; the hits are equal." + noise(report.others)
    )


def _callers(found: ServingOutcome) -> str:
    return found.served.split(", ")[-1]


def _meaning(report: ServingReport) -> str:
    found, whole = (outcome(report, contest) for contest in report.contests)
    [one, many] = report.contests[0].served
    together = float(np.median(ratios(report.rounds[many.name], report.rounds[one.name])))
    waits, direct = (latency(report.rounds[name], 0.5) * 1e3 for name in (one.name, report.contests[0].direct[0].name))
    return (
        "## What it means\n\n"
        f"- A single caller waits {waits:.0f} ms (p50) for a picture; the graph alone takes {direct:.0f} ms.\n"
        f"- {MANY} concurrent callers get {together:.2f} times the pictures/s of one: one picture keeps all cores\n"
        "  busy, so callers wait for each other.\n"
        f"- Running the graph in your own program instead of calling Triton gives {_gain(found.to_rival.median)};\n"
        f"  decoding, describing and searching there instead of calling Search gives {_gain(whole.to_rival.median)}."
    )


def _gain(ratio: float) -> str:
    return f"{1 / ratio - 1:.0%} more pictures/s" if ratio < 0.995 else "no more pictures/s"


def _contest(report: ServingReport, contest: Contest) -> str:
    found = outcome(report, contest)
    rows = [_row(report, one.name, found.baseline) for one in contest.contenders]
    cells = table(("", "pictures/s", "p50 ms", "p95 ms", "ratio to the baseline, 95% interval"), rows)
    return f"## {contest.title}\n\n{cells}\n\nBaseline: {found.baseline}, which uses the cores as Triton does."


def _row(report: ServingReport, name: str, baseline: str) -> tuple[str, ...]:
    rounds = report.rounds[name]
    ratio = "1 (baseline)" if name == baseline else interval(_ratio(report, name, baseline), 3)
    return (
        name,
        f"{_speed(report, name):.2f}",
        *(f"{latency(rounds, share) * 1e3:.0f}" for share in (0.5, 0.95)),
        ratio,
    )


def _scale(report: ServingReport) -> str:
    if report.eager is None:
        return "Eager torch was not measured: the weights that the models were exported from are not available."
    direct = _speed(report, report.contests[0].direct[0].name)
    return (
        "For scale: eager torch in fp32, measured last with one caller and "
        f"{len(report.eager.latencies)} pictures, one of each shape: {report.eager.throughput:.2f} pictures/s,\n"
        f"{report.eager.throughput / direct:.2f} of the graph in process. It computes all ten outputs, including local "
        "features."
    )


def _breakdown(parts: Breakdown) -> str:
    rows = [(name, f"{ms:.1f}", f"{ms / parts.client:.1%}") for name, ms in (*parts.rows, ("sum", parts.client))]
    return (
        "## Where the time of a served picture goes\n\n"
        "Means with one caller, from Triton's statistics; every picture is sent once, right after it ran in process.\n"
        "A part can be negative because the machine varies from one picture to the next.\n\n"
        + table(("", "ms", "share"), rows)
    )


def _batches(batched: Counters) -> str:
    return (
        f"With {MANY} callers, the backbone got {batched.inferences} pictures in {batched.executions} "
        "executions. Within an execution,\npictures of equal shape share one inference."
    )


def _method(report: ServingReport) -> str:
    shapes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(one.shape for one in report.pictures))
    first = report.contests[0]
    rounds = len(report.rounds[first.direct[0].name])
    return (
        "## How it was measured\n\n"
        f"- {len(report.pictures)} photographs from the scikit-image wheel, {shapes} (height x width) in turn. Triton "
        "and the graph get pixels;\n  Search gets JPEGs with a long side of 1,600, over an index of them.\n"
        f"- {rounds} rounds after a warm-up round. In each round every contender answers the same requests "
        f"({first.requests}; {report.contests[1].requests} for searches),\n  one contender after the other, in an "
        "order that changes from round to round.\n"
        "- Ratios are taken within a round. The interval is the percentile bootstrap over rounds, "
        f"10,000 draws, seed {report.seed}.\n"
        "- In process means the code that serves the graph (`ops/backend/runner.py`) with the settings of its "
        "`config.pbtxt`, computing the two outputs\n  of `describe`: "
        "one caller with all cores, or two with half of them each.\n"
        "- Callers run on the same cores as the servers; their cost is part of the served figures."
    )


def _ratio(report: ServingReport, name: str, baseline: str) -> MedianEstimate:
    return estimate(ratios(report.rounds[name], report.rounds[baseline]), seed=report.seed)


def _speed(report: ServingReport, name: str) -> float:
    return float(np.median(throughputs(report.rounds[name])))


def _floor(value: float) -> str:
    """Format with six decimals, rounded down."""
    return f"{np.floor(min(value, 1.0) * 1e6) / 1e6:.6f}"
