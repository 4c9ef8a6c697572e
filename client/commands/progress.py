"""Progress of long work: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from landseer.client.commands.output import cell, console
from landseer.client.commands.pace import Pace

_LINE_EVERY_S = 10.0


class Display(Protocol):
    """Shows the progress of some work."""

    def update(self, done: int, failed: int = 0) -> None:
        """Show that `done` items are finished, `failed` of them without success."""

    def note(self, text: str) -> None:
        """Print a line of text without breaking the display."""


@contextmanager
def display(what: str, total: int) -> Iterator[Display]:
    """Show progress on stderr while the block runs; stdout is for the result."""
    if not sys.stderr.isatty():
        yield ProgressLines(what, total)
        return
    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=console(sys.stderr), expand=True) as progress:
        yield ProgressBar(progress, total)


class ProgressBar:
    """A bar with the rate and the remaining time."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._task = progress, progress.add_task("", total=total, pace="")
        self._pace = Pace(total)

    def update(self, done: int, failed: int = 0) -> None:
        """Move the bar to `done` items."""
        self._pace.update(done)
        self._progress.update(self._task, completed=done, pace=_told(self._pace, failed))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(cell(text, "yellow"), soft_wrap=True)


class ProgressLines:
    """A line every ten seconds, for log files."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._pace = what, total, Pace(total)
        self._last = time.monotonic()

    def update(self, done: int, failed: int = 0) -> None:
        """Print a line if the last one is ten seconds old."""
        self._pace.update(done)
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        told = _told(self._pace, failed)
        self.note(f"{self._what}: {done:,} of {self._total:,}{', ' if told else ''}{told}")

    def note(self, text: str) -> None:
        """Print a line."""
        console(sys.stderr).print(cell(text), soft_wrap=True)


def _told(pace: Pace, failed: int) -> str:
    return ", ".join(part for part in (pace.rate, f"{failed:,} failed" if failed else "", pace.left) if part)
