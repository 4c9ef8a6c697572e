"""What stops a training."""

from __future__ import annotations

from pathlib import Path


class TrainingError(RuntimeError):
    """A training that cannot start or go on; the message says what was got, what was expected and how to mend it."""


class Stopped(RuntimeError):
    """A training that was interrupted; what was done lies in a file and can be taken up again."""

    def __init__(self, state: Path) -> None:
        super().__init__(f"stopped; what was done is in {state}")
        self.state = state
