"""The geometric median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 200


def geometric_median(points: NDArray[np.float64], *, tolerance: float = 1e-4) -> NDArray[np.float64]:
    """Return the point [D] whose distances to `points` [N, D] sum to the least. ValueError without points.

    Weiszfeld's iteration with the step of Vardi and Zhang (2000, eq. 2.6), which leaves a point of the data where it
    is not the median. It starts at the mean: between two points all are medians, and it returns the middle.
    `tolerance`, in the unit of the points, is the step at which it stops.
    """
    if len(points) == 0:
        raise ValueError("got no points; a median needs one")
    here: NDArray[np.float64] = points.mean(axis=0)
    for _ in range(ROUNDS):
        there = _step(points, here)
        if np.linalg.norm(there - here) < tolerance:
            return there
        here = there
    return here


def _step(points: NDArray[np.float64], here: NDArray[np.float64]) -> NDArray[np.float64]:
    distances = np.linalg.norm(points - here, axis=1)
    apart = distances > 1e-12
    if not apart.any():
        return here
    weights = 1 / distances[apart]
    pull = weights @ points[apart] / weights.sum()
    strength = np.linalg.norm(weights @ (points[apart] - here))
    held = min(1.0, (~apart).sum() / strength) if strength > 0 else 1.0
    there: NDArray[np.float64] = (1 - held) * pull + held * here
    return there
