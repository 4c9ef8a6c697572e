"""Progress bars and warnings on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SHOWN = 5
"""Skipped things that a warning names."""
EVERY_S = 30.0
"""Seconds between two lines where there is no terminal."""


class BarsOrLines(Progress):
    """Bars on a terminal. Elsewhere, such as in a log file, a line every `EVERY_S`, and the bars at the end."""

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        super().__init__(*columns, console=console)
        self._over, self._teller = Event(), Thread(target=self._tell, name="progress", daemon=True)

    def start(self) -> None:
        """Start to show."""
        super().start()
        if not self.console.is_terminal:
            self._teller.start()

    def stop(self) -> None:
        """Stop to show."""
        self._over.set()
        if self._teller.is_alive():
            self._teller.join()
        super().stop()

    def _tell(self) -> None:
        while not self._over.wait(EVERY_S):
            for line in self._lines():
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _lines(self) -> Iterator[str]:
        for task in self.tasks:
            if task.total is None or task.completed < task.total:
                total = "?" if task.total is None else f"{task.total:,.0f}"
                yield f"{task.description}: {task.completed:,.0f} of {total} after {task.elapsed or 0:,.0f} s"


def bars(console: Console) -> Progress:
    """Return progress with counts and the time that remains: bars, or lines where there is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return BarsOrLines(*columns, console=console)


def warn(lines: Iterable[str], console: Console) -> None:
    """Warn about skipped things, the first few by name."""
    skipped: Sequence[str] = list(lines)
    for line in skipped[:SHOWN]:
        console.print(f"skipped {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(skipped) > SHOWN:
        console.print(f"and {len(skipped) - SHOWN:,} more were skipped", style="yellow")
