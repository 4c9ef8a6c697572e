"""The parts that several benchmark reports share, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from landseer.ops.bench.statistics import MedianEstimate

QUIET = 0.05
"""Share of the cores that other programs may use before the report warns."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table. With more than two columns, all but the first are right-aligned."""
    lines = [head, ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine_table(machine: Sequence[tuple[str, str]], others: float) -> str:
    """Return the table of the machine. others: share of all cores that other programs used."""
    return table(("machine", ""), [*machine, ("other programs meanwhile", f"{others:.0%} of all cores")])


def noise(others: float) -> str:
    """Return a warning if other programs used more than `QUIET` of the cores, else nothing."""
    if others <= QUIET:
        return ""
    return (
        f"\n\n**The machine was not quiet**: other programs used {others:.0%} of its cores. That affects ratios and "
        "differences less than\nabsolute times, but repeat the run on a quiet machine before you rely on any of them."
    )


def interval(found: MedianEstimate, places: int) -> str:
    """Return a median and its interval with so many decimal places."""
    return f"{found.median:.{places}f} ({found.low:.{places}f} to {found.high:.{places}f})"
