"""Progress of a training in the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """A watcher that shows two bars, epochs and steps, and prints a line per validation."""

    def __init__(self, console: Console, measure: str) -> None:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.console, self.measure = console, measure
        self.progress = Progress(*columns, console=console)
        self._epochs = self.progress.add_task("epochs", told="", total=None)
        # Hidden until there are steps: a finished run that is resumed has none.
        self._steps = self.progress.add_task("steps", told="", total=None, visible=False)
        self._first = self._count = 0
        self._loss = float("nan")
        self._value = ""

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def resumed(self, epoch: int, epochs: int, best: float) -> None:
        """Show what was done before, and print it."""
        self._value = f"best validation {best:.2f}"
        self.progress.update(self._epochs, total=epochs, completed=epoch, told=self._value)
        done = "finished before" if epoch >= epochs else "resumed"
        told = f"{done}, {epoch} of {epochs} epochs: best validation ({self.measure}) {best:.2f}"
        self.console.print(told, soft_wrap=True, highlight=False)

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Start the bar of an epoch, `step` steps into it."""
        self._first, self._count = epoch, steps
        self.progress.update(self._epochs, total=epochs, completed=epoch + step / steps)
        self.progress.reset(self._steps, total=steps, completed=step, visible=True)

    def doing(self, what: str) -> None:
        """Show work other than steps, such as mining."""
        self.progress.update(self._epochs, told=what or self._value)

    def step(self, loss: float) -> None:
        """Advance the bars."""
        self._loss = loss
        self.progress.update(self._steps, advance=1, told=f"loss {loss:.4f}")
        self.progress.update(self._epochs, advance=1 / max(self._count, 1))

    def validated(self, value: float, best: bool) -> None:
        """Print the result of a validation."""
        done = self._first + 1 if self._count else 0
        self._value = f"validation {value:.2f}"
        when = f"epoch {done}, last loss {self._loss:.4f}" if done else "before the first step"
        self.progress.update(self._epochs, completed=done)
        told = f"{when}: validation ({self.measure}) {value:.2f}{', the best so far' if best and done else ''}"
        self.console.print(told, soft_wrap=True, highlight=False)
