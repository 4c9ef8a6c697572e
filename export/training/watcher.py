"""Interface for reporting the progress of a training."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Receives the progress of the training loop."""

    def resumed(self, epoch: int, epochs: int, best: float) -> None:
        """Is called when a run resumes: `epoch` of its epochs are done, and `best` is its best validation so far."""

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Is called when an epoch (from 0) starts, or resumes after `step` steps."""

    def doing(self, what: str) -> None:
        """Is called with an activity other than steps, and with "" at its end."""

    def step(self, loss: float) -> None:
        """Is called with the loss of each step."""

    def validated(self, value: float, best: bool) -> None:
        """Is called after each validation."""


class Silent:
    """A watcher that does nothing."""

    def resumed(self, epoch: int, epochs: int, best: float) -> None:
        """Do nothing."""

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Do nothing."""

    def doing(self, what: str) -> None:
        """Do nothing."""

    def step(self, loss: float) -> None:
        """Do nothing."""

    def validated(self, value: float, best: bool) -> None:
        """Do nothing."""
