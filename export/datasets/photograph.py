"""A photograph of a data set, not yet decoded."""

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
    """A file, its class, and the known boxes of the object."""

    path: Path
    label: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """A data set. Photographs keep source order; each file occurs once."""

    name: str
    photographs: tuple[Photograph, ...]
    skipped: tuple[str, ...] = field(default=())
    """One line with the reason for each skipped entry."""

    def by_label(self) -> dict[str, list[Photograph]]:
        """Return the photographs by class; classes are in the order of their first photograph."""
        members: dict[str, list[Photograph]] = {}
        for photograph in self.photographs:
            members.setdefault(photograph.label, []).append(photograph)
        return members
