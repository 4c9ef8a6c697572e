"""What an evaluation found: the table for people, the JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from landseer.ensemble.evaluation import Evaluation, bootstrap_interval
from landseer.ensemble.profile import Profile
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.methods import Method

KS = (1, 10)
"""Of the precisions."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method reached, by one protocol."""

    method: Method
    protocol: str
    figures: Evaluation


@dataclass(frozen=True, kw_only=True)
class Results:
    """All rows, and what they are of."""

    dataset: Dataset
    rows: Sequence[Row]
    profile: Profile
    seed: int
    """Of the intervals."""

    def print(self) -> None:
        """Print the table to stdout."""
        table = Table(title=self._head(), title_justify="left", box=None, pad_edge=False)
        several = len(self.dataset.protocols) > 1
        table.add_column("method")
        for name in (*(("protocol",) if several else ()), "mAP", "95% interval", "mP@10", "first right"):
            table.add_column(name, justify="left" if name == "protocol" else "right")
        for row in self.rows:
            low, high = self._interval(row)
            first, ten = row.figures.mean_precisions
            protocol = (row.protocol,) if several else ()
            figures = (f"{100 * value:.1f}" for value in (ten, first))
            between = f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(str(row.method), *protocol, f"{100 * row.figures.map:.1f}", between, *figures)
        Console(file=sys.stdout).print(table)

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the average precision of every query."""
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """Return what `write` writes."""
        dataset = self.dataset
        return {
            "data": dataset.name,
            "queries": [str(query.shot.path) for query in dataset.queries],
            "references": len(dataset.references),
            "distractors": dataset.distractors,
            "skipped": [str(path) for path in dataset.skipped],
            "profile": json.loads(self.profile.to_json()),
            "seed": self.seed,
            "rows": [self._row(row) for row in self.rows],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        first, ten = row.figures.mean_precisions
        return {
            "method": str(row.method),
            "protocol": row.protocol,
            "map": row.figures.map,
            "interval": self._interval(row),
            "mp10": float(ten),
            "first_right": float(first),
            "aps": [None if np.isnan(ap) else float(ap) for ap in row.figures.aps],
        }

    def _interval(self, row: Row) -> tuple[float, float]:
        return bootstrap_interval(row.figures.aps, seed=self.seed)

    def _head(self) -> str:
        dataset, profile = self.dataset, self.profile
        distractors = f", {dataset.distractors:,} of them distractors" if dataset.distractors else ""
        return (
            f"{dataset.name}: {len(dataset.queries):,} queries, {len(dataset.references):,} references{distractors}; "
            f"{profile.backbone}, {profile.long_side} px"
        )
