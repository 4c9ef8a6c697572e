"""What an evaluation found: the tables for people, the JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.figures import Estimate, Row
from landseer.ops.evaluate.regimes import Regime, regimes
from landseer.ops.evaluate.sweep import Point
from landseer.ops.evaluate.system import About

WIDTH = 100
"""Of the tables where no terminal says how wide it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All rows, and what they are of."""

    dataset: Dataset
    systems: Sequence[About]
    rows: Sequence[Row]
    points: Sequence[Point] = ()
    """Of the sweep."""
    seed: int
    """Of draws and intervals."""

    @cached_property
    def regimes(self) -> list[Regime]:
        """The regimes of all rows."""
        return regimes(self.rows, self.dataset.truths())

    def untrained(self, about: About) -> list[str]:
        """Return the untrained parts of a system that shaped rows; lattqe shapes only its own."""
        asked = {part for row in self.rows for part in (row.method.name, getattr(row.method.database, "method", ""))}
        return [part for part in about.untrained if part != LATTQE or LATTQE in asked]

    def print(self) -> None:
        """Print the tables to stdout."""
        console = plain_console(pipe_width=WIDTH)
        console.print(self.head(), soft_wrap=True)
        console.print(self._table())
        if any(row.index_bytes is not None for row in self.rows):
            console.print("\na search, its query described before, and the index")
            console.print(self._costs())
        if self.points:
            console.print("\nmAP by number of neighbours")
            console.print(self._sweep())
        for about in self.systems:
            for note in about.notes:
                console.print(f"{about.name}: {note}", soft_wrap=True)

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the average precision of every query."""
        path.write_text(json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def head(self) -> str:
        """Return what was searched for, among what, by what."""
        data = self.dataset
        parts = [f"{data.name}: {len(data.queries):,} queries", f"{len(data.references):,} references"]
        parts += [f"{data.distractors:,} of them distractors"] if data.distractors else []
        parts += [f"{data.synthetic:,} synthetic distractors (not pictures)"] if data.synthetic else []
        return ", ".join(parts) + "; " + "; ".join(about.title for about in self.systems)

    def as_dict(self) -> dict[str, Any]:
        """Return what `write` writes."""
        data = self.dataset
        return {
            "data": data.name,
            "queries": [str(query.shot.path) for query in data.queries],
            "references": len(data.references),
            "distractors": data.distractors,
            "synthetic": data.synthetic,
            "skipped": [str(path) for path in data.skipped],
            "systems": [_system(about) for about in self.systems],
            "seed": self.seed,
            "rows": [_row(row) for row in self.rows],
            "sweep": [_point(point) for point in self.points],
            "regimes": [dataclasses.asdict(one) | {"gain": one.gain.as_dict()} for one in self.regimes],
        }

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        several, graded = self._several()
        for name, shown in (("models", several), ("method", True), ("protocol", graded)):
            if shown:
                table.add_column(name, no_wrap=name != "models", overflow="fold")
        for name in ("mAP", "95% interval", "mP@10", "recall@1", "gain", "95% interval"):
            table.add_column(name, justify="right", no_wrap=True)
        for row, first in self._firsts():
            told = ((row.system if first else "") if several else None, str(row.method))
            names = (*told, row.protocol if graded else None)
            table.add_row(*(name for name in names if name is not None), *cells(row))
        return table

    def _costs(self) -> Table:
        """Return the time and the memory of each row, which are the same by every protocol."""
        table = Table(box=None, pad_edge=False)
        several, _ = self._several()
        for name in (["models"] if several else []) + ["method"]:
            table.add_column(name, overflow="fold")
        for name in ("ms a query", "bytes a picture"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in {(row.system, row.method): row for row in self.rows}.values():
            time = "" if row.milliseconds is None else f"{row.milliseconds:.2f}"
            room = "" if row.index_bytes is None else f"{row.index_bytes:,.0f}"
            table.add_row(*([row.system] if several else []), str(row.method), time, room)
        return table

    def _firsts(self) -> Iterator[tuple[Row, bool]]:
        """Yield each row, and whether it is the first of its system."""
        seen: set[str] = set()
        for row in self.rows:
            yield row, row.system not in seen
            seen.add(row.system)

    def _sweep(self) -> Table:
        """Return the mAP of each method by its neighbours."""
        counts = sorted({point.method.neighbours for point in self.points})
        table = Table(box=None, pad_edge=False)
        table.add_column("method", overflow="fold")
        for count in counts:
            table.add_column(str(count), justify="right", no_wrap=True)
        lines: dict[str, dict[int, float]] = {}
        for point in self.points:
            lines.setdefault(self.line(point), {})[point.method.neighbours] = point.map
        for name, found in lines.items():
            table.add_row(name, *(f"{100 * found[count]:.1f}" if count in found else "" for count in counts))
        return table

    def line(self, point: Point) -> str:
        """Return what tells a point's line from the others of the sweep."""
        several, graded = self._several()
        parts = (point.method.family, point.protocol if graded else "", point.system if several else "")
        return ", ".join(part for part in parts if part)

    def _several(self) -> tuple[bool, bool]:
        """Whether there are several systems, several protocols."""
        return len(self.systems) > 1, len(self.dataset.protocols) > 1


def cells(row: Row) -> tuple[str, ...]:
    """Return the figures of a row as people read them, in percent."""
    gain = ("", "") if row.gain is None else (f"{100 * row.gain.value:+.1f}", between(row.gain, sign="+"))
    singles = (f"{100 * one.value:.1f}" for one in (row.mp10, row.recall_at_1))
    return (f"{100 * row.map.value:.1f}", between(row.map), *singles, *gain)


def between(estimate: Estimate, *, sign: str = "") -> str:
    """Return an interval in percent."""
    return f"{100 * estimate.low:{sign}.1f} to {100 * estimate.high:{sign}.1f}"


def _system(about: About) -> dict[str, Any]:
    return {"name": about.name, "untrained": about.untrained, "notes": about.notes, **about.details}


def _row(row: Row) -> dict[str, Any]:
    return {
        "system": row.system,
        "method": str(row.method),
        "protocol": row.protocol,
        "map": row.map.value,
        "interval": [row.map.low, row.map.high],
        "mp10": row.mp10.as_dict(),
        "recall_at_1": row.recall_at_1.as_dict(),
        "gain": None if row.gain is None else row.gain.as_dict(),
        "milliseconds": row.milliseconds,
        "index_bytes": row.index_bytes,
        "aps": [None if np.isnan(ap) else float(ap) for ap in row.figures.aps],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "system": point.system,
        "method": point.method.family,
        "neighbours": point.method.neighbours,
        "protocol": point.protocol,
        "map": point.map,
        "base": point.base,
    }
