"""docs/reports/results-regional.md: the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import bootstrap_interval
from landseer.ops.research.regional_rows import Row, gains

HEADER = (
    "| search | mAP | against | mAP gained | first right | gained | bytes a picture | ms |\n"
    "|---|---:|---|---|---:|---|---:|---:|"
)


def table(rows: Sequence[Row], known: Sequence[Row] = ()) -> str:
    """Return the rows, each against the one that it names, of them or of others that are known."""
    of = {row.name: row for row in (*known, *rows)}
    return "\n".join([HEADER, *(_line(row, of[row.against]) for row in rows)]) + "\n"


def _line(row: Row, base: Row) -> str:
    first = 100 * float(np.nanmean(row.figures.precisions[:, 0]))
    of_map, of_first = (_gain(values) for values in gains(row, base)) if row is not base else ("", "")
    against = base.name if row is not base else ""
    costs = (f"{row.searched.index_bytes or 0.0:,.0f}", f"{row.searched.milliseconds or 0.0:.1f}")
    cells = (row.name, _mean(row.figures.aps), against, of_map, f"{first:.1f}%", of_first, *costs)
    return f"| {' | '.join(cells)} |"


def _mean(values: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(values)
    return f"{100 * np.nanmean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _gain(values: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(100 * values)
    return f"{100 * np.nanmean(values):+.1f} ({low:+.1f} to {high:+.1f})"
