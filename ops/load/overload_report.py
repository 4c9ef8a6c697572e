"""The report of an overload test, in Markdown; every number comes from one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean

from landseer.client.readable import plural
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.search.gate import OVERLOADED, PIPELINE
from landseer.ops.bench.report_parts import machine_table, noise, table
from landseer.ops.load.callers import Calls

ENOUGH_GOODPUT = 0.9
"""Least share of the capacity that must be answered at any load above it."""
MOST_STRETCH = 3.0
"""A p99 of admitted searches of at most this many times the unloaded one is good."""
RAMP_S = 3.0
"""A load begins with a burst, which may wait, until the server knows it for an overload."""
MOST_LOOKUP_STRETCH = 2.0
"""The same for searches by id."""
MOST_GROWTH = 1.25
"""How much more memory than before the server may take at a load of ordinary pictures."""
LARGE = "large pictures"
MOST_BURST_MIB = 1024.0
"""What large pictures may add: four times the 256 MiB of requests that may be in flight."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one load did."""

    name: str
    offered: str
    """In words."""
    rounds: Sequence[Calls]
    """Searches by picture."""
    lookups: Sequence[Calls]
    """Searches by id beside them."""
    capacity: Sequence[float]
    """In answers per second, before, between and after the rounds: a machine's speed changes while it is measured."""
    rss_mib: float
    """Largest resident memory of the orchestrator meanwhile."""

    @property
    def calls(self) -> Calls:
        """All searches by picture."""
        return joined(self.rounds)

    @property
    def by_id(self) -> Calls:
        """All searches by id."""
        return joined(self.lookups)

    @property
    def steady(self) -> Calls:
        """Searches by picture that began after the burst with which a round begins."""
        return joined([dataclasses.replace(one, calls=one.split(RAMP_S)[1]) for one in self.rounds])

    @property
    def burst(self) -> Calls:
        """Those of that burst."""
        return joined([dataclasses.replace(one, calls=one.split(RAMP_S)[0]) for one in self.rounds])

    @property
    def answered(self) -> float:
        """Goodput as a share of the capacity."""
        return self.calls.goodput / mean(self.capacity)


def joined(rounds: Sequence[Calls]) -> Calls:
    """Return the calls of several time spans as those of one."""
    return Calls(calls=[call for one in rounds for call in one.calls], seconds=sum(one.seconds for one in rounds))


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
    """One caller who searches by picture, with searches by id beside."""
    lookups: Calls
    """Searches by id, alone."""
    capacity_callers: int
    lookups_s: float
    """Searches by id that arrive in a second."""
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
        stretch = load.steady.quantile_ms(0.99) / unloaded
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
        stretch = load.by_id.quantile_ms(0.99) / alone
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
    capacity = mean(one for load in report.loads for one in load.capacity)
    return (
        "# Overload\n\n"
        f"Written by `make overload` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`, {report.seconds:.0f} s.\n\n"
        f"**Above its capacity of {capacity:.2f} searches by picture a second the server answers at least "
        f"{least:.2f} of it** before\ntheir deadline of {report.deadline_s:g} s, and refuses the rest at once."
        f"{noise(report.others)}"
    )


def _loads(report: OverloadReport) -> str:
    alone = report.unloaded
    first = ("one caller", "1 caller", f"{alone.goodput:.2f}", "", "", *_times(report, alone), "", "0", "0", "")
    rows = [first, *(_row(report, load) for load in report.loads)]
    head = (
        *("load", "offered", "answered/s", "capacity around", "of capacity", "p50 ms", "p99 ms", "p99 / unloaded"),
        f"slowest of the first {RAMP_S:g} s",
        *("refused", "too late", "refused within, p99 ms"),
    )
    return (
        "## Searches by picture\n\n"
        + table(head, rows)
        + f"\n\nCapacity: answers per second of {report.capacity_callers} callers who wait, without a deadline that "
        "matters, measured before,\nbetween and after the rounds of each load, beside the same searches by id. "
        f"p50 and p99 are those of answers\nto searches that began after the first {RAMP_S:g} s of a round: a burst "
        f"may form a line, and is answered.\nThe aim is {ENOUGH_GOODPUT:g} of the capacity, and a p99 of at most "
        f"{MOST_STRETCH:g} times the unloaded one."
    )


def _row(report: OverloadReport, load: Load) -> tuple[str, ...]:
    calls = load.calls
    return (
        load.name,
        load.offered,
        f"{calls.goodput:.2f}",
        ", ".join(f"{one:.2f}" for one in load.capacity),
        f"{load.answered:.2f}",
        *_times(report, load.steady),
        f"{load.burst.quantile_ms(1.0):.0f}",
        str(len(calls.shed)),
        str(calls.count("DEADLINE_EXCEEDED")),
        f"{calls.quantile_ms(0.99, 'RESOURCE_EXHAUSTED'):.0f}" if calls.shed else "",
    )


def _times(report: OverloadReport, calls: Calls) -> tuple[str, str, str]:
    p99, unloaded = calls.quantile_ms(0.99), report.unloaded.quantile_ms(0.99)
    return f"{calls.quantile_ms(0.5):.0f}", f"{p99:.0f}", f"{p99 / unloaded:.1f}"


def _lookups(report: OverloadReport) -> str:
    beside = [(load.name, load.by_id) for load in report.loads]
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
        + f"\n\n{report.lookups_s:g} a second, at random times. They have a gate of their own, but share the cores "
        f"with Triton.\nThe aim is a p99 of at most {MOST_LOOKUP_STRETCH:g} times the one alone."
    )


def _reading(report: OverloadReport) -> str:
    """Return what bounds the slowest answers."""
    limit = ServerConfig.refuse_after_s
    counts = [load.steady.count("OK") for load in report.loads]
    return (
        "## What bounds the slowest answers\n\n"
        f"- A load has {min(counts)} to {max(counts)} answers by picture after its first {RAMP_S:g} s: their p99 is "
        "about the slowest of them.\n"
        f"- A burst is let in as far as it is expected to be answered within {limit:g} s. While more than a third "
        f"of the searches are\n  refused, that is {limit * OVERLOADED:g} s. As many as there are cores may always be "
        f"inside, {PIPELINE} at least: one is prepared while the models\n  run for the other.\n"
        "- Searches by id do not queue behind those by picture: they are counted apart, and on the threads that verify "
        "they take turns in small\n  pieces. But these threads wait for cores that Triton, the decoders and the "
        "callers hold, all at the same priority."
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
        f"- Each load comes in {plural(len(report.loads[0].rounds), 'round')}. The unloaded caller, the capacity and "
        "all loads have the same searches by id beside them.\n"
        "- `1x` and `4x` arrive at random (Poisson) at that multiple of the capacity, whatever becomes of others. The\n"
        "  other callers wait for each answer, and after a refusal as long as its RetryInfo says, up to twice that.\n"
        "- Triton, the orchestrator and the callers share the cores.\n\n" + machine_table(report.machine, report.others)
    )
