"""The report of a run, in Markdown; every number comes from that run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from landseer.ops.bench.report_parts import table
from landseer.ops.chaos.damage import DamageFigures
from landseer.ops.chaos.history import Verdict
from landseer.ops.chaos.kills import KillFigures
from landseer.ops.chaos.trial import Outcome, seconds
from landseer.ops.chaos.version_kills import VersionKills


@dataclass(frozen=True, kw_only=True)
class ChaosReport:
    """All results of a run, and what it ran on."""

    outcomes: Sequence[Outcome]
    history: Verdict | None
    history_faults: str
    """What happened while the history was recorded."""
    damage: DamageFigures | None
    kills: KillFigures | None
    version_kills: VersionKills | None
    machine: Sequence[tuple[str, str]]
    load: tuple[float, float]
    """Processes that wanted to run on average over a minute, before and after."""
    command: str
    date: datetime
    seconds: float


def verdict(report: ChaosReport) -> bool:
    """Return whether every promise was kept."""
    parts = (
        all(outcome.good for outcome in report.outcomes),
        report.history is None or not report.history.faults,
        report.damage is None or not report.damage.silent,
        report.kills is None or report.kills.passed,
        report.version_kills is None or not report.version_kills.faults,
    )
    return all(parts)


def markdown(report: ChaosReport) -> str:
    """Return the whole report."""
    parts = [_head(report), _faults(report.outcomes), _notes(report.outcomes)]
    if report.history is not None:
        parts.append(_history(report.history, report.history_faults))
    if report.damage is not None:
        parts.append(_damage(report.damage))
    if report.version_kills is not None:
        parts.append(_version_kills(report.version_kills))
    if report.kills is not None:
        parts.append(_kills(report.kills))
    machine = [*report.machine, ("load before, after", "{:.1f}, {:.1f}".format(*report.load))]
    parts += [table(("machine", ""), machine), _METHOD.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: ChaosReport) -> str:
    good, tried = sum(one.good for one in _tried(report)), len(_tried(report))
    lost, wrong = (sum(len(getattr(one, name)) for one in _tried(report)) for name in ("lost", "wrong"))
    return (
        "# Faults against the real processes\n\n"
        f"Written by `make chaos` on {report.date:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{report.command}`, {report.seconds / 60:.1f} minutes.\n\n"
        f"**{good} of {tried} faults** went as promised; {len(report.outcomes) - tried} were not tried. Acknowledged "
        f"changes lost: **{lost}**. Wrong answers: **{wrong}**."
    )


def _tried(report: ChaosReport) -> list[Outcome]:
    return [one for one in report.outcomes if not one.skipped]


def _faults(outcomes: Sequence[Outcome]) -> str:
    head = ("fault", "what callers saw", "seconds to recover", "at most", "acknowledged changes lost", "wrong answers")
    rows = [
        (
            one.fault,
            f"not tried: {one.skipped}" if one.skipped else one.seen,
            "" if one.skipped else seconds(one.recovered_s),
            f"{one.limit_s:g}",
            "" if one.skipped else str(len(one.lost)),
            "" if one.skipped else str(len(one.wrong)),
        )
        for one in outcomes
    ]
    return table(head, rows)


def _notes(outcomes: Sequence[Outcome]) -> str:
    """Return what the table has no room for: remarks, and all that was not as promised."""
    lines = [f"- {one.fault}: {one.note}" for one in outcomes if one.note]
    for one in outcomes:
        late = [] if one.skipped or one.recovered_s <= one.limit_s else [f"it took {seconds(one.recovered_s)} s"]
        wrong = [*late, *one.lost, *one.wrong, *one.complaints]
        lines += [f"- **{one.fault}: not as promised**: {_clipped(said)}" for said in dict.fromkeys(wrong)]
    return "\n".join(lines)


def _history(found: Verdict, faults: str) -> str:
    said = "Every key's history is linearisable, and no search was refuted." if not found.faults else ""
    lines = [f"- **{fault}**" for fault in found.faults]
    return (
        "## The history of the store\n\n"
        f"{found.operations:,} operations on a few ids by several callers at once, {found.unknown:,} of them without "
        f"an answer; meanwhile {faults}.\n" + "\n".join([said, *lines]).strip()
    )


def _damage(found: DamageFigures) -> str:
    rows = [
        ("refused when it was opened", str(found.at_open)),
        ("an error when the damaged part was read", str(found.at_read)),
        ("no answer differed", str(found.harmless)),
        ("**a wrong answer without an error**", str(len(found.silent))),
    ]
    lines = [f"- {said}" for said in found.silent[:_SHOWN]]
    return (
        f"## A flipped bit\n\nOne bit of the store's file flipped, {found.tried:,} times, and all that it holds read "
        f"again:\n\n{table(('outcome', 'flips'), rows)}" + ("\n\n" + "\n".join(lines) if lines else "")
    )


def _version_kills(found: VersionKills) -> str:
    rows = [(place, str(count)) for place, count in sorted(found.places.items())]
    lines = [f"- **{_clipped(said)}**" for said in dict.fromkeys(found.faults)]
    return (
        "## The orchestrator killed while it merges\n\n"
        f"It built a new version of the index after each change, {found.versions:,} together, while two callers wrote, "
        f"others searched and read, and its store was backed up again and again, {found.backups:,} times. It was "
        f"killed {sum(found.places.values()):,} times; callers saw {found.seen}. Every acknowledged change was looked "
        "up, every version read, and the last backup restored.\n\n"
        f"{table(('killed', 'times'), rows)}\n\n" + ("\n".join(lines) or "Nothing was lost, wrong or damaged.")
    )


def _kills(found: KillFigures) -> str:
    return (
        f"## Writers killed at random moments\n\n`{found.command}`\n\n```\n{found.said}\n```\n\n"
        f"{found.count} kills in each test. Those of the training loop and of the augmentation take seconds a kill "
        "and run with the tests;\nall of them at 500 take hours: `LANDSEER_KILLS=500 python -m pytest -k kill "
        "tests/ensemble tests/export`."
    )


def _clipped(text: str, most: int = 300) -> str:
    one_line = " ".join(text.split()).replace("|", "\\|")
    return one_line if len(one_line) <= most else one_line[:most] + " ..."


_SHOWN = 10
_METHOD = """## How it was measured

- Triton (from the wheel) and the orchestrator are real processes. A watch starts them again when they end, as
  `landseer up` and Kubernetes do; nobody else starts anything.
- During each fault one caller searches with pictures, one indexes new pictures and deletes old ones, one reads, all
  with the project's client and a timeout of 4 s. Before the fault and after it, all kinds of call must succeed.
- Seconds to recover: from the end of the cause until every call succeeds that begins then. The cause of a killed
  server ends when the next one says that it is ready; how long that took is said below the table.
- An answer is wrong if a default search finds another picture first than the one that it was given, or one by
  co-attention misses it among five, if a picture's cosine with itself is below 0.98, or if Get returns other metadata
  or another descriptor than was indexed. After each fault every acknowledged change is looked up, by id and by search.
"""
