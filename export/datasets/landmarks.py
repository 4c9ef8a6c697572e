"""Read Google Landmarks: 4.1 million photographs from the web, with the full or the cleaned list.

Weyand, Araujo, Cao and Sim 2020, "Google Landmarks Dataset v2"; the cleaned list is by Yokoo et al. 2020. Without
the classes that appear in evaluation sets it is RGLDv2-clean (Song et al. 2024, "On Train-Test Class Overlap").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.gathering import Named, those_there
from landseer.export.datasets.lines import bad_line, csv_rows, text_lines
from landseer.export.datasets.photograph import Photographs

COLUMNS = ("id", "url", "landmark_id")
CLEAN_COLUMNS = ("landmark_id", "images")
EXPECTED = f"a header {','.join(COLUMNS)} (train.csv) or {','.join(CLEAN_COLUMNS)} (train_clean.csv)"
HINT = "a picture named abcdef... lies at IMAGES/a/b/c/abcdef....jpg"

Entry = tuple[int, str, str]
"""Line number, id, landmark."""


def read_landmarks(rest: str) -> Photographs:
    """Read CSV,IMAGES[,without=FILE]: train.csv or train_clean.csv, told apart by its header."""
    file, images, without = _parts(rest)
    gone = excluded(without) if without else {}
    named = (
        Named(path=landmark_path(images, name), name=name, label=label, where=f"{file}, line {number}")
        for number, name, label in entries(file)
        if label not in gone
    )
    return those_there(f"gld:{rest}", named, hint=HINT)


def entries(file: Path) -> Iterator[Entry]:
    """Yield line, id and landmark of each photograph of train.csv or train_clean.csv that has a landmark.

    DatasetError for another header, or for a line that does not match its header.
    """
    header = next((line for _, line in text_lines(file)), "")
    columns = tuple(cell.strip() for cell in header.split(","))
    if columns == CLEAN_COLUMNS:
        return _clean(file)
    if {"id", "landmark_id"} <= set(columns):
        return _full(file, columns)
    raise bad_line(file, 1, header, EXPECTED)


def landmark_path(images: Path, name: str) -> Path:
    """Return the path of a photograph: in nested folders for its first three letters, or in one flat folder.

    The archives of v2 are nested; scripts that fetch v1, and the pictures with boxes, use one folder.
    """
    nested = images / name[0] / name[1] / name[2] / f"{name}.jpg"
    flat = images / f"{name}.jpg"
    return flat if not nested.is_file() and flat.is_file() else nested


def checked_id(name: str, file: Path, number: int) -> str:
    """Return the id if it is valid: at least three letters, digits, - and _. DatasetError otherwise."""
    if not re.fullmatch(r"[\w-]{3,}", name):
        raise bad_line(file, number, name, "the id of a picture, such as 6e158a47eb2ca3f6")
    return name


def excluded(file: Path) -> dict[str, int]:
    """Return the classes listed in a file, one per line, with their line numbers. # starts a comment."""
    lines = ((number, line.partition("#")[0].strip()) for number, line in text_lines(file))
    found: dict[str, int] = {}
    for number, label in lines:
        if label and not label.isdigit():
            raise bad_line(file, number, label, "a landmark_id, such as 138982, alone on its line")
        if label:
            found[label] = number
    return found


def _full(file: Path, columns: tuple[str, ...]) -> Iterator[Entry]:
    at, landmark = columns.index("id"), columns.index("landmark_id")
    rows = csv_rows(file)
    next(rows)
    for number, row in rows:
        if len(row) != len(columns):
            raise bad_line(file, number, ",".join(row), ",".join(columns))
        # v1 includes photographs without a landmark.
        if row[landmark] == "None":
            continue
        if not row[landmark].isdigit():
            raise bad_line(file, number, row[landmark], "a landmark_id, such as 138982")
        yield number, checked_id(row[at], file, number), row[landmark]


def _clean(file: Path) -> Iterator[Entry]:
    # Not `csv`: a landmark with ten thousand photographs exceeds its field limit.
    lines = text_lines(file)
    next(lines)
    for number, line in lines:
        landmark, separator, names = line.partition(",")
        if not separator or not landmark.isdigit() or not names.strip():
            raise bad_line(file, number, line, "landmark_id,images with image ids separated by spaces")
        for name in names.split():
            yield number, checked_id(name, file, number), landmark


def _parts(rest: str) -> tuple[Path, Path, Path | None]:
    parts = rest.split(",")
    options = [part for part in parts[2:] if part.startswith("without=") and part != "without="]
    if len(parts) not in (2, 3) or len(parts[2:]) != len(options):
        raise DatasetError(f"got gld:{rest}; expected gld:CSV,IMAGES or gld:CSV,IMAGES,without=FILE")
    return Path(parts[0]), Path(parts[1]), Path(options[0].removeprefix("without=")) if options else None
