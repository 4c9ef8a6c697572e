"""docs/results-expansion.md: the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, bootstrap_interval
from landseer.ops.evaluate.methods import Method

HEADER = "| expansion | mAP | against none | LAttQE against it | first right | numbers |\n|---|---:|---|---|---:|---|"


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What one method reached in one fold."""

    name: str
    """Of the row."""
    method: Method
    """With its numbers, which may differ from fold to fold."""
    figures: Evaluation


def table(folds: Sequence[Sequence[Found]], *, against: str) -> str:
    """Return the rows, queries of all folds together: each against none, and one against each."""
    of = {rows[0].name: rows for rows in zip(*folds, strict=True)}
    aps = {name: np.concatenate([one.figures.aps for one in rows]) for name, rows in of.items()}
    lines = [HEADER]
    for name, rows in of.items():
        first = 100 * np.concatenate([one.figures.precisions[:, 0] for one in rows]).mean()
        methods = "; ".join(dict.fromkeys(str(one.method) for one in rows))
        columns = (_mean(aps[name]), _gain(aps[name], aps["none"]), _gain(aps[against], aps[name]))
        lines.append(f"| {name} | {' | '.join(columns)} | {first:.1f}% | {methods} |")
    return "\n".join(lines) + "\n"


def sweep_table(counts: Sequence[int], folds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Return the mAP by numbers of neighbours, the mean over folds."""
    lines = ["| mAP by neighbours |" + "".join(f" {k} |" for k in counts), "|---|" + "---:|" * len(counts)]
    for name in folds[0]:
        means = np.mean([fold[name] for fold in folds], axis=0)
        lines.append(f"| {name} |" + "".join(f" {value:.1f} |" for value in means))
    return "\n".join(lines) + "\n"


def _mean(aps: NDArray[np.float64]) -> str:
    low, high = bootstrap_interval(aps)
    return f"{100 * aps.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _gain(aps: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    if aps is base:
        return "-"
    low, high = bootstrap_interval(100 * (aps - base))
    return f"{100 * (aps - base).mean():+.1f} ({low:+.1f} to {high:+.1f})"
