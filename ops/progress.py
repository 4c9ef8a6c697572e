"""Progress bars and warnings on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = 5
"""Skipped things that a warning names."""


def bars(console: Console) -> Progress:
    """Return progress bars with counts and the time that remains."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def warn(lines: Iterable[str], console: Console) -> None:
    """Warn about skipped things, the first few by name."""
    skipped: Sequence[str] = list(lines)
    for line in skipped[:SHOWN]:
        console.print(f"skipped {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(skipped) > SHOWN:
        console.print(f"and {len(skipped) - SHOWN:,} more were skipped", style="yellow")
