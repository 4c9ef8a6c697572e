"""docs/reports/results.md: the tables, with intervals and the range over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, Ids
from landseer.ops.evaluate.head_variants import BASELINE, Cost
from landseer.ops.research.cells import QUERIES, gain_cells, mean_cells


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadRow:
    """The figures of one descriptor, by seed of its training."""

    name: str
    figures: Sequence[Evaluation]
    cost: Cost

    @cached_property
    def aps(self) -> NDArray[np.float64]:
        """The AP of each query, the mean over seeds, [Q]."""
        return np.asarray(np.mean([one.aps for one in self.figures], axis=0), np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTable:
    """The rows of one backbone."""

    backbone: str
    source: str
    rows: Sequence[HeadRow]
    classes: Ids
    """The class of each query, [Q]."""

    def text(self) -> str:
        """Return the table as Markdown."""
        base = next(row for row in self.rows if row.name == BASELINE)
        lines = [
            f"## {self.backbone}",
            "",
            f"{self.source}.",
            "",
            f"| descriptor | mAP | {QUERIES} | seeds | against GeM off the shelf | {QUERIES} | first right "
            "| parameters | GFLOPs |",
            "|---|---:|---|---|---|---|---:|---:|---:|",
            *(_line(row, base, self.classes) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _line(row: HeadRow, base: HeadRow, classes: Ids) -> str:
    maps = [100 * one.map for one in row.figures]
    first = 100 * float(np.mean([one.mean_precisions[0] for one in row.figures]))
    seeds = f"{len(maps)}: {min(maps):.1f} to {max(maps):.1f}" if len(maps) > 1 else "1" if _learned(row) else "-"
    cells = (row.name, *mean_cells(row.aps, classes), seeds, *gain_cells(row.aps, base.aps, classes), f"{first:.1f}%")
    return f"| {' | '.join(cells)} | {row.cost.parameters / 1e6:.1f} M | {row.cost.gflops:.1f} |"


def _learned(row: HeadRow) -> bool:
    return "off the shelf" not in row.name
