"""A photograph of a data set, before anyone has looked at its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle, in fractions of the picture's width and height: 0 ≤ x0 < x1 ≤ 1, 0 ≤ y0 < y1 ≤ 1."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A file, the class it is of, and where in it that is known to be."""

    path: Path
    label: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """A data set. Photographs keep the order of their source; each file is there once."""

    name: str
    photographs: tuple[Photograph, ...]
    skipped: tuple[str, ...] = field(default=())
    """One line for each thing that was passed over, and why."""

    def by_label(self) -> dict[str, list[Photograph]]:
        """Return the photographs of each class, classes in the order of their first photograph."""
        members: dict[str, list[Photograph]] = {}
        for photograph in self.photographs:
            members.setdefault(photograph.label, []).append(photograph)
        return members
