"""Read lines of text files and rows of CSV files with their line numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from landseer.export.datasets.errors import DatasetError

TOLERANCE = 1e-3
"""How far a side may exceed the picture: allows rounding, not another unit."""
_UNREADABLE = (OSError, UnicodeDecodeError, csv.Error)


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of each non-blank line. DatasetError if the file cannot be read."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.strip()
    except _UNREADABLE as error:
        raise DatasetError(f"cannot read {file}: {error}") from error


def csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number (from 1) and fields of each non-blank row. DatasetError if the file cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for row in reader:
                if row:
                    yield reader.line_num, [cell.strip() for cell in row]
    except _UNREADABLE as error:
        raise DatasetError(f"cannot read {file}: {error}") from error


def fractions(texts: Sequence[str], file: Path, number: int, names: str) -> list[float]:
    """Return the four sides of a box as fractions of the picture's sides. DatasetError with the line otherwise.

    names: the four names in order, for the error.
    """
    try:
        sides = [float(text) for text in texts]
    except ValueError:
        sides = []
    if len(sides) != 4 or not all(-TOLERANCE <= side <= 1 + TOLERANCE for side in sides):
        raise bad_line(file, number, " ".join(texts), f"{names} as fractions of the picture's sides, 0 to 1")
    return [min(max(side, 0.0), 1.0) for side in sides]


def bad_line(file: Path, number: int, got: str, expected: str) -> DatasetError:
    """Return the error for a malformed line."""
    shown = got if len(got) <= 80 else f"{got[:77]}..."
    return DatasetError(f"{file}, line {number}: got {shown!r}; expected {expected}")
