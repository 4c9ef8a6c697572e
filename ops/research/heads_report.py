"""docs/reports/results.md: for each backbone the figures by kind of pictures, and gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, Ids
from landseer.ops.evaluate.head_variants import BASELINE, SHIPPED, Cost
from landseer.ops.research.cells import QUERIES, gain_cells, mean_cells
from landseer.ops.research.head_times import Time

BASES = (BASELINE, *SHIPPED.values())
"""The rows that all others are compared to, query by query."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadRow:
    """The figures of one descriptor."""

    name: str
    figures: Mapping[str, Sequence[Evaluation]]
    """By kind of pictures, then by seed of its training."""
    cost: Cost
    time: Time | None = None
    """None if it was not measured."""

    def aps(self, kind: str) -> NDArray[np.float64]:
        """Return the AP of each query, the mean over seeds, [Q]."""
        return np.asarray(np.mean([one.aps for one in self.figures[kind]], axis=0), np.float64)

    def firsts(self, kind: str) -> NDArray[np.float64]:
        """Return whether the first hit of each query is right, the mean over seeds, [Q]."""
        return np.asarray(np.mean([one.precisions[:, 0] for one in self.figures[kind]], axis=0), np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTable:
    """The rows of one backbone."""

    backbone: str
    source: str
    rows: Sequence[HeadRow]
    classes: Mapping[str, Ids]
    """The class of each query, [Q], by kind of pictures."""

    def text(self) -> str:
        """Return the tables as Markdown."""
        kinds = [f"{kind}: mAP | {kind}: first right" for kind in self.classes]
        lines = [
            f"## {self.backbone}",
            "",
            f"{self.source}.",
            "",
            f"| descriptor | {' | '.join(kinds)} | parameters | GFLOPs | ms | to GeM's |",
            f"|---|{'---|' * 2 * len(kinds)}---:|---:|---:|---:|",
            *(self._figures(row) for row in self.rows),
            *(line for base in self.rows if base.name in BASES for line in self._against(base)),
        ]
        return "\n".join(lines) + "\n"

    def _figures(self, row: HeadRow) -> str:
        cells = [row.name]
        for kind, classes in self.classes.items():
            cells += [mean_cells(values, classes)[0] for values in (row.aps(kind), row.firsts(kind))]
        time = ("-", "-") if row.time is None else (f"{row.time.milliseconds:.0f}", f"{row.time.ratio:.2f}")
        return (
            f"| {' | '.join(cells)} | {row.cost.parameters / 1e6:.1f} M | {row.cost.gflops:.1f} | {' | '.join(time)} |"
        )

    def _against(self, base: HeadRow) -> list[str]:
        """Return the table of the gains of all rows over one."""
        headings = [f"{kind}: mAP | {QUERIES} | seeds" for kind in self.classes]
        return [
            "",
            f"Against {base.name}, by query:",
            "",
            f"| descriptor | {' | '.join(headings)} |",
            f"|---|{'---|' * 3 * len(headings)}",
            *(self._gains(row, base) for row in self.rows if row is not base),
        ]

    def _gains(self, row: HeadRow, base: HeadRow) -> str:
        cells = [row.name]
        for kind, classes in self.classes.items():
            cells += [*gain_cells(row.aps(kind), base.aps(kind), classes), _seeds(row, kind)]
        return f"| {' | '.join(cells)} |"


def _seeds(row: HeadRow, kind: str) -> str:
    maps = [100 * one.map for one in row.figures[kind]]
    if len(maps) > 1:
        return f"{len(maps)}: {min(maps):.1f} to {max(maps):.1f}"
    return "-" if "off the shelf" in row.name else "1"
