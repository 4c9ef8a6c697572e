"""What people see of the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = 5
"""Things passed over that are named."""


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
    """Tell what was passed over, the first few by name."""
    told: Sequence[str] = list(lines)
    for line in told[:SHOWN]:
        console.print(f"skipped {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(told) > SHOWN:
        console.print(f"and {len(told) - SHOWN:,} more were skipped", style="yellow")
