"""Errors of training."""

from __future__ import annotations

from pathlib import Path


class TrainingError(RuntimeError):
    """A training cannot start or continue; the message says what was found and expected, and how to fix it."""


class Stopped(RuntimeError):
    """A training was interrupted; its state is saved and can be resumed."""

    def __init__(self, state: Path) -> None:
        super().__init__(f"stopped; the state is saved in {state}")
        self.state = state
