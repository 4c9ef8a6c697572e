"""Who is ranked where and why: the arrays behind a list of hits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.reranking import Coattention

Scores = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Hits, best first. NaN stands for a score that was not computed."""

    keys: NDArray[np.int64]
    """[n]: the store's keys."""
    scores: Scores
    """[n]: what the hits are sorted by."""
    global_: Scores
    """[n]: cosine with the query's own descriptor."""
    expanded: Scores
    """[n]: cosine with the expanded query."""
    coattention: Scores
    """[n]."""
    weights: Scores
    """[n, K]: co-attention weights of the clusters; K is 0 if it did not run."""

    def take(self, places: NDArray[np.int64] | slice) -> Ranking:
        """Return the hits at these places, in this order."""
        return Ranking(**{name: array[places] for name, array in vars(self).items()})

    def without(self, key: int | None) -> Ranking:
        """Return the ranking without one picture."""
        return self if key is None else self.take(np.flatnonzero(self.keys != key))


def first_ranking(keys: NDArray[np.int64], scores: Scores) -> Ranking:
    """Return the ranking of the first search; both are [n], best first."""
    nothing = np.full(len(keys), np.nan, np.float32)
    none = np.empty((len(keys), 0), np.float32)
    return Ranking(keys=keys, scores=scores, global_=scores, expanded=nothing, coattention=nothing, weights=none)


def expanded_ranking(keys: NDArray[np.int64], scores: Scores, before: Ranking) -> Ranking:
    """Return the ranking of the second search. Global scores are carried over, NaN where the first had not the hit."""
    known = dict(zip(before.keys.tolist(), before.global_.tolist(), strict=True))
    carried = np.array([known.get(key, np.nan) for key in keys.tolist()], np.float32)
    return replace(first_ranking(keys, scores), global_=carried, expanded=scores)


def reranked(ranking: Ranking, found: Coattention, weight: float) -> Ranking:
    """Sort the first C hits anew by co-attention; the rest follow as they were.

    The final score is weight * co-attention + (1 - weight) * the score that ranked them before, so weight 0 changes
    nothing; of equal scores the picture indexed first leads. The two scores are not on one scale, so those that follow
    are never scored above the last of those re-ranked: scores descend throughout.
    """
    count, places = len(found.scores), np.arange(len(ranking.keys))
    scores, coattention = ranking.scores.copy(), ranking.coattention.copy()
    weights = np.zeros((len(ranking.keys), found.weights.shape[1]), np.float32)
    scores[:count] = weight * found.scores + (1.0 - weight) * ranking.scores[:count]
    coattention[:count], weights[:count] = found.scores, found.weights
    if count:
        scores[count:] = np.minimum(scores[count:], scores[:count].min())
        places[:count] = np.lexsort((ranking.keys[:count], -scores[:count]))
    return replace(ranking, scores=scores, coattention=coattention, weights=weights).take(places)
