"""A CSV of path,class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from landseer.export.datasets.gathering import Named, all_there
from landseer.export.datasets.lines import bad_line, csv_rows
from landseer.export.datasets.photograph import Photographs

HEADER = ["path", "class"]


def read_list(rest: str) -> Photographs:
    """Read FILE: lines of path,class, with or without that header; paths count from the file's folder."""
    return all_there(f"csv:{rest}", _named(Path(rest)), hint="paths count from the file's folder")


def _named(file: Path) -> Iterator[Named]:
    for number, row in csv_rows(file):
        if number == 1 and [cell.lower() for cell in row[:2]] == HEADER:
            continue
        if len(row) < 2 or not row[0] or not row[1]:
            raise bad_line(file, number, ",".join(row), "path,class")
        yield Named(path=file.parent / row[0], name=row[0], label=row[1], where=f"{file}, line {number}")
