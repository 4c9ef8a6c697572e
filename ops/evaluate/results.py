"""The results of an evaluation: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from landseer.client.commands.output import console as plain_console
from landseer.client.readable import plural
from landseer.ensemble.evaluation import Interval
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.figures import FEWEST_CLASSES, Estimate, MethodRow
from landseer.ops.evaluate.regimes import Regime, regimes
from landseer.ops.evaluate.sweep import Point
from landseer.ops.evaluate.system import About

OVER = ("95% interval\nover classes", "95% interval\nover queries")
INTERVALS = {
    "interval_over_classes": f"95%, bootstrap over classes; null for fewer than {FEWEST_CLASSES} classes",
    "interval, low and high": "95%, bootstrap over queries: too narrow if queries of a class resemble each other",
}
"""The JSON's own explanation of its keys."""
Cells = Callable[[MethodRow], Sequence[str]]
WIDTH = 100
"""Width of the tables if stdout is not a terminal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All rows, with their data set and systems."""

    dataset: Dataset
    systems: Sequence[About]
    rows: Sequence[MethodRow]
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
        console.print(self._by_row(("mAP", *OVER, "mP@10", "recall@1"), _figures))
        if any(row.gain is not None for row in self.rows):
            console.print("\ngain: the difference of mAP to no expansion, paired by query")
            console.print(self._by_row(("gain", *OVER), _gain))
        if self.few_classes:
            console.print(f"\n{self.few_classes}", soft_wrap=True)
        if any(row.index_bytes is not None for row in self.rows):
            console.print("\ncost: the time of a search without describing the query, and the size of the index")
            console.print(self._by_row(("ms per query", "bytes per picture"), _cost, by_protocol=False))
        if self.points:
            console.print("\nmAP by number of neighbours")
            console.print(self._sweep())
        for about in self.systems:
            for note in about.notes:
                console.print(f"{about.name}: {note}", soft_wrap=True)

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the average precision of each query."""
        path.write_text(json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def head(self) -> str:
        """Return a line on the data set and the systems."""
        systems = "; ".join(about.title for about in self.systems)
        return f"{self.dataset.name}: {self.dataset.summary()}; {systems}"

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        data = self.dataset
        return {
            "data": data.name,
            "queries": [str(query.shot.path) for query in data.queries],
            "classes": data.classes().tolist(),
            "references": len(data.references),
            "distractors": data.distractors,
            "synthetic": data.synthetic,
            "turn": data.turn,
            "skipped": [str(path) for path in data.skipped],
            "systems": [_system(about) for about in self.systems],
            "seed": self.seed,
            "intervals": INTERVALS,
            "rows": [_row(row) for row in self.rows],
            "sweep": [_point(point) for point in self.points],
            "regimes": [dataclasses.asdict(one) | {"gain": one.gain.as_dict()} for one in self.regimes],
        }

    @property
    def few_classes(self) -> str:
        """Why intervals over classes are missing; empty if there are enough classes."""
        count = len(np.unique(self.dataset.classes()))
        if count >= FEWEST_CLASSES:
            return ""
        return (
            f"{plural(count, 'class', 'classes')}: too few for an interval over classes, which needs {FEWEST_CLASSES}; "
            "the one over queries is too narrow"
        )

    def _by_row(self, columns: Sequence[str], cells: Cells, *, by_protocol: bool = True) -> Table:
        """Return a table with the names and the cells of each row; rows without cells are left out."""
        table = Table(box=None, pad_edge=False)
        several, graded = len(self.systems) > 1, by_protocol and len(self.dataset.protocols) > 1
        for name, shown in (("models", several), ("method", True), ("protocol", graded)):
            if shown:
                table.add_column(name, no_wrap=name != "models", overflow="fold")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        before = ""
        for row in self.rows:
            if not cells(row) or not (by_protocol or row.protocol == self.dataset.protocols[0]):
                continue
            system, before = "" if row.system == before else row.system, row.system
            names = (*([system] if several else []), str(row.method), *([row.protocol] if graded else []))
            table.add_row(*names, *cells(row))
        return table

    def _sweep(self) -> Table:
        """Return the mAP of each method by number of neighbours."""
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
        """Return the name of the line of the sweep that a point is on."""
        protocol = point.protocol if len(self.dataset.protocols) > 1 else ""
        parts = (point.method.family, protocol, point.system if len(self.systems) > 1 else "")
        return ", ".join(part for part in parts if part)


def _figures(row: MethodRow) -> list[str]:
    return [*_estimate(row.map), *(f"{100 * one.value:.1f}" for one in (row.mp10, row.recall_at_1))]


def _gain(row: MethodRow) -> list[str]:
    return [] if row.gain is None else _estimate(row.gain, "+")


def _cost(row: MethodRow) -> list[str]:
    """Return time and memory, which are the same for every protocol; nothing for a row that was not measured."""
    if row.milliseconds is None and row.index_bytes is None:
        return []
    time = "" if row.milliseconds is None else f"{row.milliseconds:.2f}"
    return [time, "" if row.index_bytes is None else f"{row.index_bytes:,.0f}"]


def _estimate(one: Estimate, sign: str = "") -> list[str]:
    return [
        f"{100 * one.value:{sign}.1f}",
        *(between(ends, sign=sign) for ends in (one.over_classes, one.over_queries)),
    ]


def between(interval: Interval | None, *, sign: str = "") -> str:
    """Return an interval in percent; - for none."""
    return "-" if interval is None else f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"


def _system(about: About) -> dict[str, Any]:
    return {"name": about.name, "untrained": about.untrained, "notes": about.notes, **about.details}


def _row(row: MethodRow) -> dict[str, Any]:
    found = row.map.as_dict()
    return {
        "system": row.system,
        "method": str(row.method),
        "protocol": row.protocol,
        "map": found["value"],
        "interval": [found["low"], found["high"]],
        "interval_over_classes": found["interval_over_classes"],
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
