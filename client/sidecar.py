"""Reads metadata of many pictures from one file beside them: CSV, or one JSON object a line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from landseer.client.errors import UnusableInput
from landseer.client.picture_files import composed
from landseer.client.queries import utf8

_LINES = (".jsonl", ".ndjson")
_NAMES = ("id", "path")
"""What names a picture: exactly one of them in each row."""


class NamedPicture(Protocol):
    """A picture by both its names."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def absolute(self) -> str:
        """Its absolute path."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Metadata by picture."""

    by_id: dict[str, dict[str, str]] = field(default_factory=dict)
    by_path: dict[str, dict[str, str]] = field(default_factory=dict)
    """By absolute path."""

    def of(self, picture: NamedPicture) -> Mapping[str, str]:
        """Return the metadata of a picture; those by id win where both ways name it."""
        return self.by_path.get(composed(picture.absolute), {}) | self.by_id.get(picture.id, {})

    def unused(self, pictures: Iterable[NamedPicture]) -> int:
        """Return how many rows name none of these pictures."""
        ids, paths = set[str](), set[str]()
        for picture in pictures:
            ids.add(picture.id)
            paths.add(composed(picture.absolute))
        return len(self.by_id.keys() - ids) + len(self.by_path.keys() - paths)


def read_sidecar(path: Path) -> Sidecar:
    """Read FILE.csv, or FILE.jsonl, in UTF-8. UnusableInput names the line of what cannot be used.

    Each row has an `id`, or a `path` from the file's folder, and fields. Numbers, truths and lists of JSON become
    texts, as filters read them; empty cells and null are left out. A picture named twice has the fields of both rows.
    """
    if path.suffix.lower() not in (".csv", *_LINES):
        raise UnusableInput(f"got {path}; expected a file that ends in .csv, {' or '.join(_LINES)}")
    made, folder = Sidecar(), path.absolute().parent
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _of_csv(file) if path.suffix.lower() == ".csv" else _of_lines(file)
            for line, row in rows:
                _add(made, row, folder, where=f"{path}, line {line}")
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UnusableInput(f"{path} is not UTF-8: {error.reason}; save it as UTF-8") from error
    except csv.Error as error:
        raise UnusableInput(f"{path} is no CSV: {error}") from error
    return made


def _of_csv(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    for row in reader:
        # More cells than the first line has names are under None, missing ones are None.
        yield reader.line_num, {name: cell for name, cell in row.items() if name is None or cell}


def _of_lines(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                yield number, error


def _add(made: Sidecar, row: Any, folder: Path, *, where: str) -> None:
    if not isinstance(row, dict):
        raise UnusableInput(f'{where}: expected a JSON object such as {{"id": "a.jpg", "year": 1990}}')
    if None in row:
        raise UnusableInput(f"{where}: more cells than the first line has names")
    named = [name for name in _NAMES if row.get(name)]
    if len(named) != 1:
        raise UnusableInput(f"{where}: expected an `id` or a `path`, got {' and '.join(named) or 'neither'}")
    name = utf8(where, str(row[named[0]]))
    metadata = {}
    for key, value in row.items():
        if key not in _NAMES and (text := _text(value, f"{where}: {utf8(where, key)}")) is not None:
            metadata[key] = text
    if named == ["id"]:
        made.by_id.setdefault(composed(name), {}).update(metadata)
    else:
        # A URL, which `landseer bulk` takes, is no path.
        address = name if "://" in name else os.path.normpath(folder / name)
        made.by_path.setdefault(composed(address), {}).update(metadata)


def _text(value: Any, where: str) -> str | None:
    """Return a value as the text that metadata hold; None to leave it out."""
    if value is None or isinstance(value, str):
        return value and utf8(where, value)
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value)):
        raise UnusableInput(f"{where}: expected a text, a number, true, false or a list of texts")
    return utf8(where, json.dumps(value, ensure_ascii=False))
