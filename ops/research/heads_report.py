"""docs/reports/results.md: the table, with spreads over seeds and intervals over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landseer.ensemble.evaluation import Evaluation, bootstrap_interval
from landseer.ops.research.variants import BASELINE, Cost


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What one descriptor reached, by each seed of its training."""

    name: str
    figures: Sequence[Evaluation]
    cost: Cost


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All rows of one backbone."""

    backbone: str
    source: str
    rows: Sequence[Row]

    def text(self) -> str:
        """Return it as Markdown."""
        base = next(row for row in self.rows if row.name == BASELINE)
        lines = [
            f"## {self.backbone}",
            "",
            f"{self.source}.",
            "",
            "| descriptor | mAP | seeds | against GeM off the shelf | first right | parameters | GFLOPs |",
            "|---|---:|---|---|---:|---:|---:|",
            *(_line(row, base) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _line(row: Row, base: Row) -> str:
    maps = [100 * one.map for one in row.figures]
    low, high = bootstrap_interval(_aps(row))
    first = 100 * float(np.mean([one.mean_precisions[0] for one in row.figures]))
    seeds = f"{len(maps)}: {min(maps):.1f} to {max(maps):.1f}" if len(maps) > 1 else "1" if _learned(row) else "-"
    return (
        f"| {row.name} | {np.mean(maps):.1f} ({100 * low:.1f} to {100 * high:.1f}) | {seeds} | {_gain(row, base)} | "
        f"{first:.1f}% | {row.cost.parameters / 1e6:.1f} M | {row.cost.gflops:.1f} |"
    )


def _learned(row: Row) -> bool:
    return "off the shelf" not in row.name


def _gain(row: Row, base: Row) -> str:
    """Return the difference of mAP with its interval, queries drawn in pairs."""
    if row is base:
        return "-"
    differences = 100 * (_aps(row) - _aps(base))
    low, high = bootstrap_interval(differences)
    return f"{np.nanmean(differences):+.1f} ({low:+.1f} to {high:+.1f})"


def _aps(row: Row) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return each query's AP, the mean over seeds."""
    return np.asarray(np.mean([one.aps for one in row.figures], axis=0), np.float64)
