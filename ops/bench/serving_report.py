"""The report of the serving benchmark: Markdown in which every number was measured in that run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from landseer.ops.bench.breakdown import Breakdown, Counters
from landseer.ops.bench.contest import MANY, Contest
from landseer.ops.bench.pictures import Picture
from landseer.ops.bench.statistics import MedianEstimate, Round, estimate, latency, ranked, ratios, throughputs

QUIET = 0.05
"""Share of the cores that other programs may use without a word of warning."""


@dataclass(frozen=True, kw_only=True)
class ServingReport:
    """All that was measured, and on what."""

    contests: tuple[Contest, ...]
    """The first decides."""
    rounds: Mapping[str, Sequence[Round]]
    batched: Counters
    """Triton's, over the turns of many callers."""
    parts: Breakdown
    eager: Round | None
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used meanwhile."""
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
    """How the worst of the served compares with what it could have been in process."""

    baseline: str
    """In process as it is served: one picture at a time on all cores."""
    served: str
    ratio: MedianEstimate
    """Of the served to the baseline: what serving itself costs."""
    rival: str
    """The best in process, however it uses the cores."""
    to_rival: MedianEstimate


def outcome(report: ServingReport, contest: Contest) -> ServingOutcome:
    """Hold the worst of the served against the same in process, and against the best in process."""
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
    """Say whether serving keeps what it must."""
    return outcome(report, report.contests[0]).ratio.median >= report.at_least


def markdown(report: ServingReport) -> str:
    """Return the whole report."""
    parts = (
        _head(report),
        table(("machine", ""), [*report.machine, ("other programs meanwhile", f"{report.others:.0%} of all cores")]),
        *(_contest(report, contest) for contest in report.contests),
        _meaning(report),
        _scale(report),
        _breakdown(report.parts),
        _batches(report.batched),
        _method(report),
    )
    return "\n\n".join(parts) + "\n"


def _head(report: ServingReport) -> str:
    found = outcome(report, report.contests[0])
    whole = outcome(report, report.contests[1])
    kept = "kept" if verdict(report) else "**not kept**"
    return (
        "# What serving costs\n\n"
        f"Written by `make bench-serving` on {report.date:%Y-%m-%d %H:%M} UTC; the next run writes it anew.\n"
        f"`{report.command}`, {report.seconds:.0f} s, backbone {report.backbone} in {report.precision}.\n\n"
        f"**Triton's `describe` reaches {_interval(found.ratio)} of the throughput of the same graph in process**\n"
        f"({found.served.split(', ')[-1]}, the worse; median of the rounds, 95% interval). "
        f"It has to keep {report.at_least:.2f}: {kept}.\n"
        f"From the encoded picture to the hits, the orchestrator's `Search` reaches {_interval(whole.ratio)}\n"
        "of decoding, describing and searching in process.\n\n"
        "In process here means as it is served: one picture at a time on all cores. Against the best way in process\n"
        f"({found.rival}), `describe` reaches {_interval(found.to_rival)};\n"
        f"`Search` against its best ({whole.rival}), {_interval(whole.to_rival)}.\n\n"
        f"Served and direct descriptors of all {len(report.pictures)} pictures agree to a cosine of "
        f"at least {_floor(report.agreement)}; hits are the same." + _noise(report.others)
    )


def _noise(others: float) -> str:
    if others <= QUIET:
        return ""
    return (
        f"\n\n**The machine was not quiet**: other programs used {others:.0%} of its cores. Ratios within a round bear "
        "that better than\nspeeds do, but run it again on a quiet one before believing either."
    )


def _meaning(report: ServingReport) -> str:
    found, whole = (outcome(report, contest) for contest in report.contests)
    [one, many] = report.contests[0].served
    together = float(np.median(ratios(report.rounds[many.name], report.rounds[one.name])))
    waits, direct = (latency(report.rounds[name], 0.5) * 1e3 for name in (one.name, report.contests[0].direct[0].name))
    return (
        "## What it means\n\n"
        f"- A caller who waits for each answer waits {waits:.0f} ms (p50) for a picture, where the graph alone takes "
        f"{direct:.0f} ms.\n"
        f"- {MANY} callers at once get {together:.2f} of the pictures a second that one gets. One picture keeps all "
        "cores busy, so they wait\n  for each other.\n"
        "- Whoever runs the graph in a program of their own instead of asking Triton gains "
        f"{_gain(found.to_rival.median)};\n  instead of asking Search, {_gain(whole.to_rival.median)}."
    )


def _gain(ratio: float) -> str:
    return f"{1 / ratio - 1:.0%} more pictures a second" if ratio < 0.995 else "nothing"


def _contest(report: ServingReport, contest: Contest) -> str:
    found = outcome(report, contest)
    rows = [_row(report, one.name, found.baseline) for one in contest.contenders]
    cells = table(("", "pictures/s", "p50 ms", "p95 ms", "of the baseline, 95% interval"), rows)
    return f"## {contest.title}\n\n{cells}\n\nBaseline: {found.baseline}, as it is served."


def _row(report: ServingReport, name: str, baseline: str) -> tuple[str, ...]:
    rounds = report.rounds[name]
    ratio = "1 (baseline)" if name == baseline else _interval(_ratio(report, name, baseline))
    return (
        name,
        f"{_speed(report, name):.2f}",
        *(f"{latency(rounds, share) * 1e3:.0f}" for share in (0.5, 0.95)),
        ratio,
    )


def _scale(report: ServingReport) -> str:
    if report.eager is None:
        return "Eager torch was not measured: the models were exported from weights that are not here any more."
    direct = _speed(report, report.contests[0].direct[0].name)
    return (
        f"For scale: eager torch in fp32, one caller, {len(report.eager.latencies)} pictures, one of each shape, after "
        f"all else: {report.eager.throughput:.2f} pictures/s,\n{report.eager.throughput / direct:.2f} of the graph in "
        "process. It computes all ten outputs, local features too."
    )


def _breakdown(parts: Breakdown) -> str:
    rows = [(name, f"{ms:.1f}", f"{ms / parts.client:.1%}") for name, ms in (*parts.rows, ("sum", parts.client))]
    return (
        "## Where the time of a served picture goes\n\n"
        "One caller, every picture once, right after the same picture in process; means. By Triton's own statistics.\n"
        "A part can come out below zero by what the machine varies from one picture to the next.\n\n"
        + table(("", "ms", "share"), rows)
    )


def _batches(batched: Counters) -> str:
    return (
        f"With {MANY} callers Triton handed the backbone {batched.inferences} pictures in {batched.executions} "
        "executions. Within an execution,\npictures of equal shape share one inference."
    )


def _method(report: ServingReport) -> str:
    shapes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(one.shape for one in report.pictures))
    first = report.contests[0]
    rounds = len(report.rounds[first.direct[0].name])
    return (
        "## How it was measured\n\n"
        f"- {len(report.pictures)} photographs of the scikit-image wheel, {shapes} (height x width) in turn. Pixels go "
        "to Triton and the graph;\n  JPEGs with a long side of 1,600 to Search, over an index of those same pictures.\n"
        f"- {rounds} rounds after one to warm up. In each, everybody answers the same requests ({first.requests}; "
        f"{report.contests[1].requests} for searches),\n  one contender after the other, in an order that changes from "
        "round to round.\n"
        "- Ratios are taken within a round. The interval is the percentile bootstrap over rounds, "
        f"10,000 draws, seed {report.seed}.\n"
        "- In process means the code that serves the graph (`ops/backend/runner.py`) with the settings of its "
        "`config.pbtxt`, computing the two outputs\n  of `describe`: "
        "one caller with all cores, or two with half of them each.\n"
        "- Callers run on the same cores as the servers. What they cost is part of the served figures."
    )


def _ratio(report: ServingReport, name: str, baseline: str) -> MedianEstimate:
    return estimate(ratios(report.rounds[name], report.rounds[baseline]), seed=report.seed)


def _speed(report: ServingReport, name: str) -> float:
    return float(np.median(throughputs(report.rounds[name])))


def _interval(found: MedianEstimate) -> str:
    return f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f})"


def _floor(value: float) -> str:
    """Six places, never rounded up to 1."""
    return f"{np.floor(min(value, 1.0) * 1e6) / 1e6:.6f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; of more than two columns, all but the first hold numbers."""
    lines = [head, ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
