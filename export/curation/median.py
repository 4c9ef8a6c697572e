"""The geometric median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 200
"""Maximum iterations."""
SAME = 1e-12
"""Points at most this far apart count as one."""


def geometric_median(points: NDArray[np.float64], *, tolerance: float = 1e-3) -> NDArray[np.float64]:
    """Return the point [D] with the least sum of distances to `points` [N, D]. ValueError without points.

    Weiszfeld's iteration with the step of Vardi and Zhang (2000, eq. 2.6), which can leave a data point that is not the
    median. It starts at the mean; of two points it returns the middle, although every point between them is a median.
    `tolerance`: step length, in the unit of the points, below which it stops. Ours, because neither SciPy nor
    scikit-learn has a geometric median.
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
    offsets = points - here
    distances = np.sqrt(np.einsum("nd,nd->n", offsets, offsets))
    apart = distances > SAME
    if not apart.any():
        return here
    weights = 1 / distances[apart]
    pull = weights @ offsets[apart]
    strength = np.sqrt(pull @ pull)
    # Each point at this very place holds with a force of one.
    held = min(1.0, (~apart).sum() / strength) if strength > 0 else 1.0
    there: NDArray[np.float64] = here + (1 - held) * pull / weights.sum()
    return there
