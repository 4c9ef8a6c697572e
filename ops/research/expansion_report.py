"""docs/reports/results-expansion.md: the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, bootstrap_interval
from landseer.ops.evaluate.methods import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one method reached in one fold, by each seed of its training; one if nothing is trained."""

    name: str
    """Of the row."""
    methods: Sequence[Method]
    """With their numbers, which may differ from seed to seed and from fold to fold."""
    figures: Sequence[Evaluation]

    @property
    def aps(self) -> NDArray[np.float64]:
        """Each query's AP, the mean over seeds."""
        return np.asarray(np.mean([one.aps for one in self.figures], axis=0), np.float64)

    @property
    def first(self) -> NDArray[np.float64]:
        """How often each query's first hit is right, the mean over seeds."""
        return np.asarray(np.mean([one.precisions[:, 0] for one in self.figures], axis=0), np.float64)


def table(folds: Sequence[Sequence[Found]], *, against: str) -> str:
    """Return the rows, queries of all folds together: each against none, and one against each."""
    of = {rows[0].name: rows for rows in zip(*folds, strict=True)}
    aps = {name: np.concatenate([one.aps for one in rows]) for name, rows in of.items()}
    columns = ("expansion", "mAP", "seeds", "against none", f"{against} against it", "first right", "numbers")
    lines = [f"| {' | '.join(columns)} |", "|---|---:|---|---|---|---:|---|"]
    for name, rows in of.items():
        first = 100 * np.concatenate([one.first for one in rows]).mean()
        methods = "; ".join(dict.fromkeys(str(method) for one in rows for method in one.methods))
        gains = (_gain(aps[name], aps["none"]), _gain(aps[against], aps[name]))
        cells = (_mean(aps[name]), _seeds(rows), *gains)
        lines.append(f"| {name} | {' | '.join(cells)} | {first:.1f}% | {methods} |")
    return "\n".join(lines) + "\n"


def sweep_table(counts: Sequence[int], folds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Return the mAP by numbers of neighbours, the mean over folds."""
    lines = ["| mAP by neighbours |" + "".join(f" {k} |" for k in counts), "|---|" + "---:|" * len(counts)]
    for name in folds[0]:
        means = np.mean([fold[name] for fold in folds], axis=0)
        lines.append(f"| {name} |" + "".join(f" {value:.1f} |" for value in means))
    return "\n".join(lines) + "\n"


def _seeds(rows: Sequence[Found]) -> str:
    """Return how many trainings there were, and the least and the most that they reached."""
    by_seed = zip(*(one.figures for one in rows), strict=True)
    maps = [100 * np.concatenate([one.aps for one in folds]).mean() for folds in by_seed]
    return f"{len(maps)}: {min(maps):.1f} to {max(maps):.1f}" if len(maps) > 1 else "-"


def _mean(aps: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(aps)
    return f"{100 * aps.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _gain(aps: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    if aps is base:
        return "-"
    low, high = bootstrap_interval(100 * (aps - base))
    return f"{100 * (aps - base).mean():+.1f} ({low:+.1f} to {high:+.1f})"
