"""Turn the entries of a list into existing photographs, each once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Box, Photograph, Photographs


@dataclass(frozen=True, kw_only=True)
class Named:
    """An entry of a list; its file may not exist."""

    path: Path
    name: str
    """As written in the list."""
    label: str
    where: str
    """File and line of the entry, for errors."""
    boxes: tuple[Box, ...] = ()


def all_there(name: str, listed: Iterable[Named], *, hint: str) -> Photographs:
    """Return the photographs of a list made by hand. DatasetError if one is missing; `hint` says where to look.

    Naming a file twice is an error too, because a picture has one class.
    """
    found = []
    for one in _once(listed):
        if not one.path.is_file():
            raise DatasetError(f"{one.where}: no picture at {one.path}; {hint}")
        found.append(Photograph(path=one.path, label=one.label, boxes=one.boxes))
    if not found:
        raise DatasetError(f"{name} lists no pictures; {hint}")
    return Photographs(name=name, photographs=tuple(found))


def those_there(name: str, listed: Iterable[Named], *, hint: str) -> Photographs:
    """Return the existing photographs of a list collected from the web; missing ones are listed in `skipped`.

    DatasetError if none exists, which means a wrong folder, or if a file is named twice.
    """
    found, missing = [], []
    for one in _once(listed):
        if one.path.is_file():
            found.append(Photograph(path=one.path, label=one.label, boxes=one.boxes))
        else:
            missing.append(f"{one.path}: missing, listed in {one.where}")
    if not found:
        such = f", such as {missing[0]}" if missing else ""
        raise DatasetError(f"{name}: none of its {len(missing):,} pictures exists{such}; {hint}")
    return Photographs(name=name, photographs=tuple(found), skipped=tuple(missing))


def _once(listed: Iterable[Named]) -> Iterable[Named]:
    seen: set[Path] = set()
    for one in listed:
        if one.path in seen:
            raise DatasetError(f"{one.where}: {one.name} is listed twice; a picture has one class")
        seen.add(one.path)
        yield one
