"""The report of an overload test, in Markdown; every number comes from one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean

from landseer.client.readable import plural
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.search.gate import PIPELINE
from landseer.ops.bench.report_parts import machine_table, noise, table
from landseer.ops.load.callers import Calls

ENOUGH_GOODPUT = 0.9
"""Least share of the capacity that must be answered at any load above it."""
MOST_STRETCH = 3.0
"""A p99 of admitted searches of at most this many times the unloaded one is good."""
MOST_LOOKUP_STRETCH = 2.0
"""The same for searches by id."""
MOST_GROWTH = 1.25
"""How much more memory than before the server may take at a load of ordinary pictures."""
LARGE = "large pictures"
MOST_BURST_MIB = 1024.0
"""What large pictures may add: four times the 256 MiB of requests that may be in flight."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The capacity around a load, in answers per second: a machine's speed changes while it is measured."""

    before: float
    after: float

    @property
    def mean(self) -> float:
        """What the load is compared with."""
        return (self.before + self.after) / 2


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one load did."""

    name: str
    offered: str
    """In words."""
    calls: Calls
    """Searches by picture."""
    lookups: Calls
    """Searches by id beside them."""
    capacity: Capacity
    rss_mib: float
    """Largest resident memory of the orchestrator meanwhile."""

    @property
    def answered(self) -> float:
        """Goodput as a share of the capacity."""
        return self.calls.goodput / self.capacity.mean


@dataclass(frozen=True, kw_only=True)
class Burst:
    """What many searches with large pictures at once did."""

    offered: str
    """In words."""
    calls: Calls
    rss_mib: float
    """Largest resident memory of the orchestrator meanwhile."""


@dataclass(frozen=True, kw_only=True)
class OverloadReport:
    """All results of a run, and what it ran on."""

    unloaded: Calls
    """One caller, alone, who searches by picture."""
    lookups: Calls
    """One caller, alone, who searches by id."""
    capacity_callers: int
    loads: Sequence[Load]
    burst: Burst
    idle_mib: float
    """Resident memory of the orchestrator before any load."""
    settled_mib: float
    """And after all of it."""
    shed: Mapping[str, float]
    """Refused calls by reason, over the whole run."""
    deadline_s: float
    photos: int
    light: bool
    """Whether strips were searched for by the global descriptor alone."""
    machine: Sequence[tuple[str, str]]
    others: float
    """Share of all cores that other programs used."""
    command: str
    date: datetime
    seconds: float


def goodput_holds(report: OverloadReport) -> bool:
    """Return whether enough is answered at every load above the capacity, and each refusal says when to come back."""
    enough = all(load.answered >= ENOUGH_GOODPUT for load in report.loads[1:])
    return enough and all(call.retry_s is not None for load in report.loads for call in load.calls.shed)


def missed(report: OverloadReport) -> list[str]:
    """Return the aims that were missed, one a line, in words; none if all are kept."""
    return [*_missed_by_searches(report), *_missed_by_lookups(report), *_missed_by_memory(report)]


def _missed_by_searches(report: OverloadReport) -> Iterator[str]:
    unloaded = report.unloaded.quantile_ms(0.99)
    for load in report.loads[1:]:
        stretch = load.calls.quantile_ms(0.99) / unloaded
        if load.answered < ENOUGH_GOODPUT:
            yield f"{load.name}: {load.answered:.2f} of the capacity was answered, not {ENOUGH_GOODPUT:g}"
        if not stretch <= MOST_STRETCH:
            most = f"{MOST_STRETCH:g} or less"
            yield f"{load.name}: the p99 of answers is {stretch:.1f} times the unloaded one, not {most}"
    for name, calls in [*((load.name, load.calls) for load in report.loads), (LARGE, report.burst.calls)]:
        silent = sum(call.retry_s is None for call in calls.shed)
        if silent:
            yield f"{name}: {silent} refusals do not say when to come back"


def _missed_by_lookups(report: OverloadReport) -> Iterator[str]:
    alone = report.lookups.quantile_ms(0.99)
    for load in report.loads:
        stretch = load.lookups.quantile_ms(0.99) / alone
        if not stretch <= MOST_LOOKUP_STRETCH:
            most = f"{MOST_LOOKUP_STRETCH:g} or less"
            yield f"{load.name}: the p99 of searches by id is {stretch:.1f} times that alone, not {most}"


def _missed_by_memory(report: OverloadReport) -> Iterator[str]:
    for load in report.loads:
        if load.rss_mib > MOST_GROWTH * report.idle_mib:
            yield f"{load.name}: memory grew to {load.rss_mib / report.idle_mib:.2f} times, not at most {MOST_GROWTH:g}"
    grown = report.burst.rss_mib - report.idle_mib
    if grown > MOST_BURST_MIB:
        yield f"{LARGE}: memory grew by {grown:.0f} MiB, not at most {MOST_BURST_MIB:.0f}"


def markdown(report: OverloadReport) -> str:
    """Return the whole report."""
    parts = [
        _head(report),
        _aims(report),
        _loads(report),
        _lookups(report),
        _reading(report),
        _memory(report),
        _method(report),
    ]
    return "\n\n".join(parts) + "\n"


def _aims(report: OverloadReport) -> str:
    found = missed(report)
    if not found:
        return "Every aim below was kept."
    return "\n".join([f"**{plural(len(found), 'aim')} missed:**", "", *(f"- {one}." for one in found)])


def _head(report: OverloadReport) -> str:
    least = min(load.answered for load in report.loads[1:])
    capacity = mean(load.capacity.mean for load in report.loads)
    return (
        "# Overload\n\n"
        f"Written by `make overload` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`, {report.seconds:.0f} s.\n\n"
        f"**Above its capacity of {capacity:.2f} searches by picture a second the server answers at least "
        f"{least:.2f} of it** before\ntheir deadline of {report.deadline_s:g} s, and refuses the rest at once."
        f"{noise(report.others)}"
    )


def _loads(report: OverloadReport) -> str:
    rows = [_row(report, "one caller", "1 caller", report.unloaded, ("", ""))]
    for load in report.loads:
        around = f"{load.capacity.before:.2f}, {load.capacity.after:.2f}"
        rows.append(_row(report, load.name, load.offered, load.calls, (around, f"{load.answered:.2f}")))
    head = (
        *("load", "offered", "answered/s", "capacity before, after", "of capacity", "p50 ms", "p99 ms"),
        "p99 / unloaded",
        *("refused", "too late", "refused within, p99 ms"),
    )
    return (
        "## Searches by picture\n\n"
        + table(head, rows)
        + f"\n\nCapacity: answers per second of {report.capacity_callers} callers who wait, without a deadline that "
        "matters, measured before and after each load\nbeside the same searches by id. "
        f"p50 and p99 are those of answers. The aim is {ENOUGH_GOODPUT:g} of the capacity, and a p99 of at most "
        f"{MOST_STRETCH:g} times the unloaded one."
    )


def _row(report: OverloadReport, name: str, offered: str, calls: Calls, share: tuple[str, str]) -> tuple[str, ...]:
    p99, unloaded = calls.quantile_ms(0.99), report.unloaded.quantile_ms(0.99)
    return (
        name,
        offered,
        f"{calls.goodput:.2f}",
        *share,
        f"{calls.quantile_ms(0.5):.0f}",
        f"{p99:.0f}",
        f"{p99 / unloaded:.1f}",
        str(len(calls.shed)),
        str(calls.count("DEADLINE_EXCEEDED")),
        f"{calls.quantile_ms(0.99, 'RESOURCE_EXHAUSTED'):.0f}" if calls.shed else "",
    )


def _lookups(report: OverloadReport) -> str:
    beside = [(load.name, load.lookups) for load in report.loads]
    rows = [
        (
            name,
            f"{calls.goodput:.1f}",
            f"{calls.quantile_ms(0.5):.0f}",
            f"{calls.quantile_ms(0.99):.0f}",
            f"{calls.quantile_ms(0.99) / report.lookups.quantile_ms(0.99):.1f}",
            str(len(calls.shed)),
            str(calls.count("DEADLINE_EXCEEDED")),
        )
        for name, calls in [("alone", report.lookups), *beside]
    ]
    head = ("beside", "answered/s", "p50 ms", "p99 ms", "p99 / alone", "refused", "too late")
    return (
        "## Searches by id beside them\n\n"
        + table(head, rows)
        + "\n\nOne caller who waits for each answer. They have a gate of their own, but share the cores with Triton.\n"
        f"The aim is a p99 of at most {MOST_LOOKUP_STRETCH:g} times the one alone."
    )


def _reading(report: OverloadReport) -> str:
    """Return what bounds the slowest answers."""
    capacity, alone = mean(load.capacity.mean for load in report.loads), report.unloaded.goodput
    counts = [load.calls.count("OK") for load in report.loads]
    return (
        "## What bounds the slowest answers\n\n"
        f"- A load has {min(counts)} to {max(counts)} answers by picture: their p99 is about the slowest of them.\n"
        f"- {_together(report)}\n"
        f"- The unloaded caller has the cores to itself and gets {alone:.2f} answers a second. Beside the searches by "
        f"id the capacity is {capacity:.2f}: two\n  searches at once then take {PIPELINE * alone / capacity:.1f} times "
        "as long, each, as one alone.\n"
        "- Searches by id do not queue behind those by picture: they are counted apart, and on the threads that verify "
        "they take turns in small\n  pieces. But these threads wait for cores that Triton, the decoders and the "
        "callers hold, all at the same priority. Cores of its own for\n  Triton, or a lower priority for it (`nice`), "
        "may shorten that; neither was measured."
    )


def _together(report: OverloadReport) -> str:
    """Return how long an answer takes where the gate holds as few searches as it ever does."""
    limit = ServerConfig.refuse_after_s
    goodputs = {load.name: load.calls.goodput for load in report.loads[1:]}
    slow = {name: PIPELINE / rate for name, rate in goodputs.items() if rate and PIPELINE / rate > limit}
    rule = f"The server lets in what it expects to answer within {limit:g} s, and {PIPELINE} searches in any case"
    if not slow:
        return f"{rule}."
    expected = ", ".join(f"{1e3 * seconds:.0f} ms at {name}" for name, seconds in slow.items())
    return (
        f"{rule}, so that one is prepared\n  while the models run for the other. With {PIPELINE} inside an answer "
        f"takes {PIPELINE} divided by the answers a second: {expected}.\n  One at a time would be answered sooner, and "
        "fewer would be answered."
    )


def _memory(report: OverloadReport) -> str:
    rows = [("before", f"{report.idle_mib:.0f}")]
    rows += [(load.name, f"{load.rss_mib:.0f}") for load in report.loads]
    rows.append((LARGE, f"{report.burst.rss_mib:.0f}"))
    rows.append(("at the end", f"{report.settled_mib:.0f}"))
    burst, why = report.burst, ", ".join(f"{reason}: {count:.0f}" for reason, count in report.shed.items() if count)
    return (
        "## Memory\n\n"
        + table(("load", "resident, MiB (largest)"), rows)
        + f"\n\n{LARGE}: {burst.offered}; {burst.calls.count('OK')} answered, {len(burst.calls.shed)} refused, "
        f"{burst.calls.count('DEADLINE_EXCEEDED')} too late.\nThe aim is at most {MOST_GROWTH:g} times as much as "
        f"before with ordinary pictures, and {MOST_BURST_MIB:.0f} MiB more with large ones.\n"
        f"Refused calls of the whole run, by reason: {why}."
    )


def _method(report: OverloadReport) -> str:
    default = "photographs of the demo are indexed; searches are those that a server runs by default"
    light = "strips of photographs of the demo are indexed, and searched for by the global descriptor alone (`--light`)"
    return (
        "## How it was measured\n\n"
        f"- {report.photos} {light if report.light else default}.\n"
        "- `1x` and `4x` arrive at random (Poisson) at that multiple of the capacity, whatever becomes of others. The\n"
        "  other callers wait for each answer, and after a refusal as long as its RetryInfo says, up to twice that.\n"
        "- Triton, the orchestrator and the callers share the cores.\n\n" + machine_table(report.machine, report.others)
    )
