"""Cells of the reports' tables: a mean over queries in percent, and its 95% bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.figures import FEWEST_CLASSES, Estimate
from landseer.ops.evaluate.results import between

QUERIES = "over queries"
"""Heading of the second of the two columns."""
INTERVALS = f"""\
Intervals are 95% bootstrap intervals over classes: queries of a class are not independent, so whole classes are drawn,
each with all of its queries (none is given for fewer than {FEWEST_CLASSES} classes). *Over queries*: the interval if
queries are drawn one by one, which is too narrow where queries of a class resemble each other. Differences are paired
by query."""


def mean_cells(values: NDArray[np.float64], classes: Ids, *, sign: str = "") -> tuple[str, str]:
    """Return the mean of values [Q] with its interval over classes, and the interval over queries."""
    return estimate_cells(Estimate.of(values, classes), sign=sign)


def gain_cells(values: NDArray[np.float64], base: NDArray[np.float64], classes: Ids) -> tuple[str, str]:
    """Return both cells for the gain of values [Q] over a base [Q]; - for the base itself."""
    return ("-", "-") if values is base else mean_cells(values - base, classes, sign="+")


def estimate_cells(one: Estimate, *, sign: str = "") -> tuple[str, str]:
    """Return both cells of an estimate."""
    over_classes = "too few classes" if one.over_classes is None else between(one.over_classes, sign=sign)
    return f"{100 * one.value:{sign}.1f} ({over_classes})", between(one.over_queries, sign=sign)
