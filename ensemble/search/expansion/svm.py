"""A linear support vector machine for a handful of samples in many dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDS = 1000
TOLERANCE = 1e-6
BIAS = 1.0
"""A constant feature stands for the bias, as in LIBLINEAR; so the bias is penalised, too."""


def linear_svm(samples: Floats, signs: Floats, *, penalty: float) -> Floats:
    """Return the weights [D] that minimise |w|^2 / 2 + penalty * sum of max(0, 1 - y_i (w x_i + b)).

    samples: [n, D]; signs: [n] of 1 and -1. Dual coordinate descent (Hsieh et al., ICML 2008, algorithm 1, hinge loss)
    on the Gram matrix [n, n]: n is some tens, D a thousand and more. The order is fixed, so the result is too. It ends
    when no gradient exceeds 1e-6 where it could still move.
    """
    signed = samples * signs[:, None]
    gram = signed @ signed.T + BIAS**2 * np.outer(signs, signs)
    alphas = np.zeros(len(samples))
    for _ in range(ROUNDS):
        worst = 0.0
        for row in range(len(samples)):
            gradient = gram[row] @ alphas - 1.0
            worst = max(worst, abs(_projected(gradient, alphas[row], penalty)))
            if gram[row, row] > 0:
                alphas[row] = min(max(alphas[row] - gradient / gram[row, row], 0.0), penalty)
        if worst < TOLERANCE:
            break
    weights: Floats = alphas @ signed
    return weights


def _projected(gradient: float, alpha: float, penalty: float) -> float:
    """Return the gradient where it could still move alpha within [0, penalty], else 0."""
    if alpha <= 0.0:
        return min(gradient, 0.0)
    return max(gradient, 0.0) if alpha >= penalty else gradient
