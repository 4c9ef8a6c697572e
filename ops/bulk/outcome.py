"""What became of a picture."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ensemble.store.record import Record


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """The record of a picture, or why there is none."""

    position: int
    """Of the picture among those of the run."""
    record: Record | None = None
    """Without metadata."""
    why: str = ""
