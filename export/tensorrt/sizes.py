"""Counts of real picture sizes, for which engines are tuned."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import target_size

Size = tuple[int, int]
"""Height and width in pixels."""
COLUMNS = ["height", "width", "count"]


class SizesError(RuntimeError):
    """An unusable table of sizes. The message is one readable line."""


@dataclass(frozen=True, kw_only=True)
class PictureSizes:
    """Counts of original picture sizes, before the orchestrator resizes them."""

    counts: Mapping[Size, int]
    source: str

    def served(self, profile: Profile) -> Counter[Size]:
        """Return the counts of heights and widths at the backbone's input, by the orchestrator's rule."""
        served: Counter[Size] = Counter()
        for (height, width), count in self.counts.items():
            served_width, served_height = target_size(width, height, profile)
            served[served_height, served_width] += count
        return served


MEASURED = PictureSizes(
    counts={(348, 348): 4958, (464, 348): 426, (348, 464): 37, (2, 3): 1, (3, 2): 1},
    source="5,421 photographs of GroceryStoreDataset, as held, and one of 3:2 each way",
)
"""The default without `--picture-sizes`: mostly squares, some 4:3, and 3:2 of cameras so that it is tuned too."""


def read_sizes(path: Path) -> PictureSizes:
    """Read a CSV with the columns height, width and count. SizesError says which line is wrong."""
    try:
        with path.open(newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header != COLUMNS:
                raise SizesError(f"{path} starts with {','.join(header)!r}; expected the line {','.join(COLUMNS)!r}")
            counts: Counter[Size] = Counter()
            for row in rows:
                height, width, count = _numbers(row, path, rows.line_num)
                counts[height, width] += count
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SizesError(f"cannot read the picture sizes {path}: {error}") from error
    if not counts:
        raise SizesError(f"{path} has no counts; expected lines such as 3024,4032,17 after the first")
    return PictureSizes(counts=counts, source=path.name)


def _numbers(row: list[str], path: Path, line: int) -> list[int]:
    try:
        numbers = [int(cell) for cell in row]
    except ValueError:
        numbers = []
    if len(numbers) != len(COLUMNS) or min(numbers) < 1:
        raise SizesError(f"{path}, line {line}: got {','.join(row)!r}; expected three whole numbers from 1")
    return numbers
