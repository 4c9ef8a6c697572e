"""docs/reports/results-regional.md: the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landseer.ensemble.evaluation import Ids
from landseer.ops.research.cells import QUERIES, mean_cells
from landseer.ops.research.regional_rows import RegionalRow, gains

HEADER = (
    f"| search | mAP | {QUERIES} | against | mAP gained | {QUERIES} | first right | gained | {QUERIES} "
    "| bytes per picture | ms |\n"
    "|---|---:|---|---|---|---|---:|---|---|---:|---:|"
)


def table(rows: Sequence[RegionalRow], classes: Ids, known: Sequence[RegionalRow] = ()) -> str:
    """Return the rows, each compared with the one that it names, which is in `rows` or in `known`.

    classes: of the queries, [Q].
    """
    of = {row.name: row for row in (*known, *rows)}
    return "\n".join([HEADER, *(_line(row, of[row.against], classes) for row in rows)]) + "\n"


def _line(row: RegionalRow, base: RegionalRow, classes: Ids) -> str:
    first = 100 * float(np.nanmean(row.figures.precisions[:, 0]))
    none = ("", "")
    of_map, of_first = (none if row is base else mean_cells(values, classes, sign="+") for values in gains(row, base))
    against = base.name if row is not base else ""
    costs = (f"{row.searched.index_bytes or 0.0:,.0f}", f"{row.searched.milliseconds or 0.0:.1f}")
    found = mean_cells(row.figures.aps, classes)
    cells = (row.name, *found, against, *of_map, f"{first:.1f}%", *of_first, *costs)
    return f"| {' | '.join(cells)} |"
