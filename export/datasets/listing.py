"""Read a CSV of path,class, or of path,class,x0,y0,x1,y1 from `landseer data clean --boxes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from landseer.export.datasets.gathering import Named, all_there
from landseer.export.datasets.lines import bad_line, csv_rows, fractions
from landseer.export.datasets.photograph import Box, Photographs

HEADER = ["path", "class"]
SIDES = ["x0", "y0", "x1", "y1"]


def read_list(rest: str) -> Photographs:
    """Read FILE: lines of path,class, with or without that header; paths are relative to the file's folder.

    With the header path,class,x0,y0,x1,y1 each line also has a box, in fractions of the picture's sides; a picture with
    several boxes has one line for each, in sequence.
    """
    file = Path(rest)
    boxed = next(([cell.lower() for cell in row] for _, row in csv_rows(file)), []) == HEADER + SIDES
    named = _gathered(_named(file, boxed)) if boxed else _named(file, boxed)
    return all_there(f"csv:{rest}", named, hint="paths are relative to the file's folder")


def _named(file: Path, boxed: bool) -> Iterator[Named]:
    for number, row in csv_rows(file):
        if number == 1 and [cell.lower() for cell in row[:2]] == HEADER:
            continue
        if len(row) < 2 or not row[0] or not row[1]:
            raise bad_line(file, number, ",".join(row), "path,class")
        where, boxes = f"{file}, line {number}", (_box(row[2:], file, number),) if boxed else ()
        yield Named(path=file.parent / row[0], name=row[0], label=row[1], where=where, boxes=boxes)


def _gathered(listed: Iterator[Named]) -> Iterator[Named]:
    """Merge consecutive lines of the same picture into one entry with all their boxes."""
    last: Named | None = None
    for one in listed:
        if last is not None and (one.path, one.label) == (last.path, last.label):
            last = replace(last, boxes=(*last.boxes, *one.boxes))
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _box(texts: Sequence[str], file: Path, number: int) -> Box:
    x0, y0, x1, y1 = fractions(texts, file, number, " ".join(SIDES))
    if x0 >= x1 or y0 >= y1:
        raise bad_line(file, number, " ".join(texts), "a box with x0 < x1 and y0 < y1")
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)
