"""What the first searches say of each candidate, as log odds to add to those of verification.

A cosine means little by itself: the right cover may have 0.5 where any jar of yoghurt has 0.8. What tells is how much
nearer a candidate is than the others. Constants were learned together, by logistic regression on three kinds of
pictures; docs/research/fusion.md says how.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

OTHERS = 10
"""The distance of a candidate is compared with that of the one with this many nearer ones."""
NEARER, BY_WORDS = 15.0, 0.5
"""Log odds for each e-fold that a candidate is nearer, and lost with each that its rank by words is lower."""
SMALLEST = 0.02
"""Added to distances, so that a copy is not infinitely nearer."""


def log_prior(cosines: Scores, words: Scores) -> NDArray[np.float64]:
    """Return the log odds of candidates [C], up to a constant, in the order of the candidates.

    cosines: with the query's descriptor; words: similarity by visual words; NaN for a candidate without one, which
    counts as the farthest.
    """
    return -NEARER * _nearness(cosines) - BY_WORDS * np.log1p(_ranks(words))


def _nearness(cosines: Scores) -> NDArray[np.float64]:
    """Return the logarithm of each distance, over that of the candidate with `OTHERS` nearer ones; 0 if unknown."""
    known = ~np.isnan(cosines)
    if not known.any():
        return np.zeros(len(cosines))
    lowest = cosines[known].min()
    distances = np.log(np.maximum(1.0 - np.where(known, cosines, lowest).astype(np.float64), 0.0) + SMALLEST)
    return np.asarray(distances - np.sort(distances)[min(OTHERS, len(distances) - 1)])


def _ranks(scores: Scores) -> NDArray[np.int64]:
    """Return the rank of each candidate, best first, the unscored last; all 0 if none has a score."""
    if np.isnan(scores).all():
        return np.zeros(len(scores), np.int64)
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks
