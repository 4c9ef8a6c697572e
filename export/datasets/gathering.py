"""From what a list names to photographs that are there, each once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Box, Photograph, Photographs


@dataclass(frozen=True, kw_only=True)
class Named:
    """A photograph as a list names it; nobody has looked yet whether it is there."""

    path: Path
    name: str
    """As the list writes it."""
    label: str
    where: str
    """File and line that name it, for errors."""
    boxes: tuple[Box, ...] = ()


def all_there(name: str, listed: Iterable[Named], *, hint: str) -> Photographs:
    """Return the photographs of a list made by hand: DatasetError for one that is missing. `hint` tells where to look.

    A file that is named twice is an error too: a picture has one class.
    """
    found = []
    for one in _once(listed):
        if not one.path.is_file():
            raise DatasetError(f"{one.where}: there is no picture {one.path}; {hint}")
        found.append(Photograph(path=one.path, label=one.label, boxes=one.boxes))
    if not found:
        raise DatasetError(f"{name} names no picture; {hint}")
    return Photographs(name=name, photographs=tuple(found))


def those_there(name: str, listed: Iterable[Named], *, hint: str) -> Photographs:
    """Return what there is of a list collected from the web: what is missing is told in `skipped`.

    DatasetError if nothing at all is there, which is a wrong folder, and for a file that is named twice.
    """
    found, missing = [], []
    for one in _once(listed):
        if one.path.is_file():
            found.append(Photograph(path=one.path, label=one.label, boxes=one.boxes))
        else:
            missing.append(f"{one.path}: not there, though {one.where} names it")
    if not found:
        such = f", such as {missing[0]}" if missing else ""
        raise DatasetError(f"{name}: none of its {len(missing):,} pictures is there{such}; {hint}")
    return Photographs(name=name, photographs=tuple(found), skipped=tuple(missing))


def _once(listed: Iterable[Named]) -> Iterable[Named]:
    seen: set[Path] = set()
    for one in listed:
        if one.path in seen:
            raise DatasetError(f"{one.where}: {one.name} was named before; a picture has one class")
        seen.add(one.path)
        yield one
