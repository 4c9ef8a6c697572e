"""docs/reports/results-expansion.md: the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, Ids
from landseer.ops.evaluate.methods import Method
from landseer.ops.research.cells import QUERIES, gain_cells, mean_cells


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpansionRow:
    """The figures of one method in one fold, by seed of its training; untrained methods have one."""

    name: str
    """Name of the row."""
    methods: Sequence[Method]
    """Its numbers may differ by seed and by fold."""
    figures: Sequence[Evaluation]
    classes: Ids
    """The class of each query, [Q], numbered alike in all folds."""

    @property
    def aps(self) -> NDArray[np.float64]:
        """The AP of each query, the mean over seeds, [Q]."""
        return np.asarray(np.mean([one.aps for one in self.figures], axis=0), np.float64)

    @property
    def first(self) -> NDArray[np.float64]:
        """How often the first hit of each query is right, the mean over seeds, [Q]."""
        return np.asarray(np.mean([one.precisions[:, 0] for one in self.figures], axis=0), np.float64)


def table(folds: Sequence[Sequence[ExpansionRow]], *, against: str) -> str:
    """Return the table over the queries of all folds: each row against `none`, and the row `against` against each."""
    of = {rows[0].name: rows for rows in zip(*folds, strict=True)}
    aps = {name: np.concatenate([one.aps for one in rows]) for name, rows in of.items()}
    classes = np.concatenate([rows[0].classes for rows in folds])
    gains = ("against none", QUERIES, f"{against} against this row", QUERIES)
    lines = [
        f"| {' | '.join(('expansion', 'mAP', QUERIES, 'seeds', *gains, 'first right', 'numbers'))} |",
        "|---|---:|---|---|---|---|---|---|---:|---|",
    ]
    for name, rows in of.items():
        first = 100 * np.concatenate([one.first for one in rows]).mean()
        methods = "; ".join(dict.fromkeys(str(method) for one in rows for method in one.methods))
        pairs = ((aps[name], aps["none"]), (aps[against], aps[name]))
        gained = (cell for one, base in pairs for cell in gain_cells(one, base, classes))
        cells = (*mean_cells(aps[name], classes), _seeds(rows), *gained)
        lines.append(f"| {name} | {' | '.join(cells)} | {first:.1f}% | {methods} |")
    return "\n".join(lines) + "\n"


def sweep_table(counts: Sequence[int], folds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Return the mAP by number of neighbours, the mean over folds."""
    lines = ["| mAP by neighbours |" + "".join(f" {k} |" for k in counts), "|---|" + "---:|" * len(counts)]
    for name in folds[0]:
        means = np.mean([fold[name] for fold in folds], axis=0)
        lines.append(f"| {name} |" + "".join(f" {value:.1f} |" for value in means))
    return "\n".join(lines) + "\n"


def _seeds(rows: Sequence[ExpansionRow]) -> str:
    """Return the number of trainings, and their lowest and highest mAP."""
    by_seed = zip(*(one.figures for one in rows), strict=True)
    maps = [100 * np.concatenate([one.aps for one in folds]).mean() for folds in by_seed]
    return f"{len(maps)}: {min(maps):.1f} to {max(maps):.1f}" if len(maps) > 1 else "-"
