"""Training curves: rows recorded during a run, written as a table and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from landseer.export.training.files import write_whole


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """A measurement after some steps: the mean loss since the last row, or a validation."""

    epoch: int
    """Epoch from 0; for a validation, the number of epochs done."""
    step: int
    """Optimiser steps since the start."""
    loss: float | None = None
    """Mean over the steps since the last row."""
    learning_rate: float | None = None
    validation: float | None = None


COLUMNS = tuple(field.name for field in fields(CurveRow))


def plain(rows: Sequence[CurveRow]) -> list[dict[str, Any]]:
    """Return rows as stored in a checkpoint."""
    return [asdict(row) for row in rows]


def write_curves(rows: Sequence[CurveRow], folder: Path, measure: str) -> None:
    """Write curves.csv and curves.png. `measure` names the validation."""
    write_table(rows, folder / "curves.csv")
    write_whole(folder / "curves.png", lambda path: _draw(rows, path, measure))


def write_table(rows: Sequence[CurveRow], path: Path) -> None:
    """Write the rows as CSV, with empty cells for missing values. No times, so that equal runs give equal files."""

    def write(staged: Path) -> None:
        with staged.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)

    write_whole(path, write)


def read_table(path: Path) -> list[CurveRow]:
    """Read what `write_table` wrote."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        CurveRow(
            epoch=int(row["epoch"]),
            step=int(row["step"]),
            **{name: float(cell) for name, cell in row.items() if cell and name not in {"epoch", "step"}},
        )
        for row in rows
    ]


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _draw(rows: Sequence[CurveRow], path: Path, measure: str) -> None:
    """Plot loss and learning rate above, the validation below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    _line(above, rows, "loss", "tab:blue", "")
    above.set_ylabel("loss")
    rate = above.twinx()
    _line(rate, rows, "learning_rate", "tab:grey", ":")
    rate.set_ylabel("learning rate (dotted)")
    _line(below, rows, "validation", "tab:green", "o")
    below.set_ylabel(measure)
    below.set_xlabel("steps")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _line(axes: Any, rows: Sequence[CurveRow], name: str, colour: str, style: str) -> None:
    seen = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    lines = {"": "-", ":": ":", "o": "-o"}
    axes.plot([step for step, _ in seen], [value for _, value in seen], lines[style], color=colour, markersize=4)
