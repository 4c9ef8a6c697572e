"""Whom a training tells how it stands."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Whom the loop tells how it stands."""

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Tell that an epoch (from 0) begins, or goes on after some steps of it."""

    def doing(self, what: str) -> None:
        """Tell what is done beside steps; empty when it is done."""

    def step(self, loss: float) -> None:
        """Tell the loss of a step."""

    def validated(self, value: float, best: bool) -> None:
        """Tell a validation."""


class Silent:
    """A watcher that says nothing."""

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Say nothing."""

    def doing(self, what: str) -> None:
        """Say nothing."""

    def step(self, loss: float) -> None:
        """Say nothing."""

    def validated(self, value: float, best: bool) -> None:
        """Say nothing."""
