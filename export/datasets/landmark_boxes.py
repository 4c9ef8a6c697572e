"""Read boxes around landmarks, to train detectors on.

There are two layouts: that of the Google Landmark Boxes dataset (Teichmann, Araujo, Zhu and Sim 2019, "Detect-to-
Retrieve": boxes_split1.csv and boxes_split2.csv, columns id,box, where a box is "ymin xmin ymax xmax"), and
that of Open Images (columns ImageID, XMin, XMax, YMin, YMax and others). Both are in fractions of the picture's sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.gathering import Named, those_there
from landseer.export.datasets.landmarks import HINT, checked_id, entries, landmark_path
from landseer.export.datasets.lines import bad_line, csv_rows, fractions
from landseer.export.datasets.photograph import Box, Photographs

LABEL = "landmark"
"""The class of every box if no list names the landmarks."""

_Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Boxed:
    line: int
    boxes: list[Box] = field(default_factory=list)


def read_boxes(rest: str) -> Photographs:
    """Read CSV,IMAGES[,labels=CSV]: photographs with all their boxes, in the order of their first lines.

    A photograph's class is its landmark in `labels`, a train.csv; without `labels` every class is `landmark`. Boxes
    without area are listed in `skipped`.
    """
    file, images, labels = _parts(rest)
    boxed, flat = _boxed(file)
    classes = {name: label for _, name, label in entries(labels)} if labels else dict.fromkeys(boxed, LABEL)
    named = (
        Named(
            path=landmark_path(images, name),
            name=name,
            label=classes[name],
            where=f"{file}, line {found.line}",
            boxes=tuple(found.boxes),
        )
        for name, found in boxed.items()
        if name in classes
    )
    unknown = [f"{name}: {labels} does not name its landmark" for name in boxed if name not in classes]
    there = those_there(f"boxes:{rest}", named, hint=HINT)
    return Photographs(name=there.name, photographs=there.photographs, skipped=(*flat, *unknown, *there.skipped))


def _boxed(file: Path) -> tuple[dict[str, _Boxed], list[str]]:
    found: dict[str, _Boxed] = {}
    flat = []
    for number, name, sides in _rows(file):
        box = Box(x0=sides[1], y0=sides[0], x1=sides[3], y1=sides[2])
        if box.x0 < box.x1 and box.y0 < box.y1:
            found.setdefault(name, _Boxed(line=number)).boxes.append(box)
        else:
            flat.append(f"{file}, line {number}: the box of {name} has no area")
    return found, flat


def _rows(file: Path) -> Iterator[tuple[int, str, Sequence[float]]]:
    """Yield line, id and ymin, xmin, ymax, xmax."""
    rows = csv_rows(file)
    columns = next(rows, (1, []))[1]
    layout = next((one for one in LAYOUTS if {column.lower() for column in columns} >= set(one)), None)
    if layout is None:
        raise bad_line(file, 1, ",".join(columns), "a header id,box or ImageID,...,XMin,XMax,YMin,YMax")
    for number, row in rows:
        cells = dict(zip(map(str.lower, columns), row, strict=False))
        if len(row) != len(columns):
            raise bad_line(file, number, ",".join(row), ",".join(columns))
        yield number, checked_id(cells[layout[0]], file, number), _sides(LAYOUTS[layout](cells), file, number)


def _sides(texts: Sequence[str], file: Path, number: int) -> list[float]:
    return fractions(texts, file, number, "ymin xmin ymax xmax")


def _split(cells: _Row) -> Sequence[str]:
    return cells["box"].split()


def _separate(cells: _Row) -> Sequence[str]:
    return [cells[side] for side in ("ymin", "xmin", "ymax", "xmax")]


LAYOUTS: Mapping[tuple[str, ...], Callable[[_Row], Sequence[str]]] = {
    ("id", "box"): _split,
    ("imageid", "xmin", "xmax", "ymin", "ymax"): _separate,
}
"""Columns, in lower case with the id first, and how to get ymin, xmin, ymax, xmax from a row."""


def _parts(rest: str) -> tuple[Path, Path, Path | None]:
    parts = rest.split(",")
    options = [part for part in parts[2:] if part.startswith("labels=") and part != "labels="]
    if len(parts) not in (2, 3) or len(parts[2:]) != len(options):
        raise DatasetError(f"got boxes:{rest}; expected boxes:CSV,IMAGES or boxes:CSV,IMAGES,labels=CSV")
    return Path(parts[0]), Path(parts[1]), Path(options[0].removeprefix("labels=")) if options else None
