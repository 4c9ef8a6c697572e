"""Rankings: the arrays behind a list of hits, with all scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.prior import log_prior
from landseer.ensemble.verify.evidence import NO_EVIDENCE, Evidence, Via
from landseer.ensemble.verify.verification import reordered

Scores = NDArray[np.float32]
RANK = 60
"""The constant of reciprocal rank fusion, as in its paper."""
SAME = 0.99
"""Probability from which a hit may expand the query: covers gain more than from 0.9, products as much."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Hits, best first. NaN marks a score that was not computed."""

    keys: NDArray[np.int64]
    """[n]: the store's keys."""
    scores: Scores
    """[n]: the score that hits are sorted by."""
    global_: Scores
    """[n]: cosine with the query's own descriptor."""
    expanded: Scores
    """[n]: cosine with the expanded query."""
    coattention: Scores
    """[n]."""
    inliers: Scores
    """[n]: whole numbers."""
    words: Scores
    """[n]: similarity by visual words."""
    relevance: Scores
    """[n]: probability of the same thing, by LAttQE, of the hits that expanded the query."""
    evidence: NDArray[np.object_]
    """[n]: `Evidence` of spatial verification by keypoints and patches; None where it did not run."""
    weights: Scores
    """[n, K]: co-attention weights of the clusters; K is 0 if it did not run."""

    def take(self, places: NDArray[np.int64] | slice) -> Ranking:
        """Return the hits at these places, in this order."""
        return Ranking(**{name: array[places] for name, array in vars(self).items()})

    def without(self, key: int | None) -> Ranking:
        """Return the ranking without one picture."""
        return self if key is None else self.take(np.flatnonzero(self.keys != key))

    def evidence_by_key(self) -> dict[int, Evidence]:
        """Return what was found in the hits that were compared by keypoints, best hit first."""
        return {key: one for key, one in zip(self.keys.tolist(), self.evidence, strict=True) if one is not None}


def first_ranking(keys: NDArray[np.int64], scores: Scores) -> Ranking:
    """Return the ranking of the first search; both are [n], best first."""
    nothing = np.full(len(keys), np.nan, np.float32)
    none = np.empty((len(keys), 0), np.float32)
    return Ranking(
        keys=keys,
        scores=scores,
        global_=scores,
        expanded=nothing,
        coattention=nothing,
        inliers=nothing,
        words=nothing,
        relevance=nothing,
        evidence=np.full(len(keys), None, np.object_),
        weights=none,
    )


def words_ranking(keys: NDArray[np.int64], scores: Scores) -> Ranking:
    """Return the ranking of a first search by visual words; both are [n], best first. Global scores are unknown."""
    return replace(first_ranking(keys, scores), global_=np.full(len(keys), np.nan, np.float32), words=scores)


def expanded_ranking(keys: NDArray[np.int64], scores: Scores, before: Ranking) -> Ranking:
    """Return the ranking of the second search. First scores are kept; NaN for hits that the first search lacked."""

    def carried(first: Scores) -> Scores:
        known = dict(zip(before.keys.tolist(), first.tolist(), strict=True))
        return np.array([known.get(key, np.nan) for key in keys.tolist()], np.float32)

    after = replace(first_ranking(keys, scores), expanded=scores)
    return replace(
        after,
        global_=carried(before.global_),
        words=carried(before.words),
        relevance=carried(before.relevance),
    )


def with_relevance(ranking: Ranking, keys: NDArray[np.int64], relevance: Scores) -> Ranking:
    """Return the ranking with the relevance [k] of the hits that have these keys [k]; empty if it is not known."""
    known = dict(zip(keys.tolist(), relevance.tolist(), strict=False))
    return replace(ranking, relevance=np.array([known.get(key, np.nan) for key in ranking.keys.tolist()], np.float32))


def fused(ranking: Ranking, other: Ranking) -> Ranking:
    """Merge two rankings by reciprocal rank (Cormack et al. 2009), best first; ties go to the picture indexed first.

    The score of a hit is the sum of 1 / (60 + rank) over both, divided by its largest value: from 0 to 1. Scores by
    stage are kept; NaN for a stage that did not score the hit.
    """
    keys = np.union1d(ranking.keys, other.keys)
    sums = np.zeros(len(keys))
    for one in (ranking, other):
        sums[np.searchsorted(keys, one.keys)] += (RANK + 1.0) / (2.0 * (RANK + 1.0 + np.arange(len(one.keys))))
    merged = first_ranking(keys, sums.astype(np.float32))
    scored = replace(
        merged,
        global_=_either(ranking, ranking.global_, other, other.global_, keys),
        expanded=_either(ranking, ranking.expanded, other, other.expanded, keys),
        words=_either(ranking, ranking.words, other, other.words, keys),
        relevance=_either(ranking, ranking.relevance, other, other.relevance, keys),
    )
    return scored.take(np.lexsort((keys, -sums)))


def _either(ranking: Ranking, these: Scores, other: Ranking, those: Scores, keys: NDArray[np.int64]) -> Scores:
    """Return the scores of a stage for keys [n], from the first ranking that has them."""
    scores = np.full(len(keys), np.nan, np.float32)
    scores[np.searchsorted(keys, other.keys)] = those
    known = ~np.isnan(these)
    scores[np.searchsorted(keys, ranking.keys[known])] = these[known]
    return scores


def moved_to_front(ranking: Ranking, chosen: NDArray[np.bool_]) -> Ranking:
    """Move the chosen of the first C hits to the front; the order is otherwise kept.

    chosen: [C]. Scores are unchanged: re-ranking the chosen hits makes them descend.
    """
    places = np.arange(len(ranking.keys))
    places[: len(chosen)] = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])
    return ranking.take(places)


def sorted_by_coattention(ranking: Ranking, found: Coattention, weight: float) -> Ranking:
    """Sort the first C hits by co-attention; the others keep their order.

    The final score is weight * co-attention + (1 - weight) * previous score, so weight 0 changes nothing; ties go to
    the picture indexed first. The two scores are not on the same scale, so the scores of the other hits are capped at
    the lowest re-ranked score: scores descend throughout.
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


def sorted_by_evidence(
    ranking: Ranking, evidence: Mapping[int, Evidence], count: int, *, cosines: Scores | None = None
) -> Ranking:
    """Sort the first `count` hits by the log odds that they show the same thing; the others follow in their order.

    evidence: by key; hits without, as pictures without keypoints, count as those in which nothing was found. The score
    becomes the sum of the log odds of verification (`Evidence.score`) and of the first searches (`log_prior`). So that
    scores descend throughout, those of the other hits fall from the last one's.

    cosines: [count], by which nearness counts; those with the query itself unless given.
    """
    nearness = ranking.global_[:count] if cosines is None else cosines
    found = np.full(len(ranking.keys), None, np.object_)
    found[:count] = [evidence.get(key) for key in ranking.keys[:count].tolist()]
    odds = np.array([NO_EVIDENCE if one is None else one.score for one in found[:count]], np.float64)
    odds += log_prior(nearness, ranking.words[:count])
    after = odds.min(initial=0.0) - np.log1p(np.arange(1, len(found) - len(odds) + 1))
    scores = np.concatenate([odds, after]).astype(np.float32)
    inliers = np.array([np.nan if one is None else one.inliers for one in found], np.float32)
    order = np.argsort(-scores, kind="stable")
    return replace(ranking, evidence=found, scores=scores, inliers=inliers).take(order)


def verified(ranking: Ranking, most: int) -> dict[int, Evidence]:
    """Return the first hits that keypoints are sure of, at most `most`: their evidence by key, best first."""
    return dict(islice(((key, one) for key, one in ranking.evidence_by_key().items() if one.probability >= SAME), most))


def unverified_keys(ranking: Ranking, most: int) -> NDArray[np.int64]:
    """Return the keys of the first hits that were compared by keypoints, which are not sure of them; at most `most`."""
    unsure = [one is not None and one.probability < SAME for one in ranking.evidence]
    return np.asarray(ranking.keys[np.flatnonzero(unsure)[:most]])


def recognised(ranking: Ranking, vias: Mapping[int, Via], count: int) -> Ranking:
    """Sort the first `count` hits again, after some may have been recognised by way of others; vias: by key."""
    known = ranking.evidence_by_key()
    known |= {key: known[key].recognised(via) for key, via in vias.items()}
    return sorted_by_evidence(ranking, known, count, cosines=ranking.expanded[:count])


def with_verified(ranking: Ranking, before: Ranking) -> Ranking:
    """Return a ranking with the hits first that `before` is sure of, also those that it lacks itself."""
    sure = list(verified(before, len(before.keys)))
    lost = before.take(np.flatnonzero(np.isin(before.keys, sure) & ~np.isin(before.keys, ranking.keys)))
    both = Ranking(**{name: np.concatenate([array, getattr(ranking, name)]) for name, array in vars(lost).items()})
    return moved_to_front(both, np.isin(both.keys, sure))


def sorted_by_inliers(ranking: Ranking, inliers: NDArray[np.int64]) -> Ranking:
    """Sort the first C hits by (inliers, score), as D2R does; the others keep their order.

    inliers: [C], below 0 for a hit that could not be verified: it keeps its place, and the others are sorted around it.
    The final score is inliers + (1 + previous score) / 2, which gives the same order for scores from -1 to 1. So that
    scores descend throughout, a hit that kept its place gets at least the score of the next hit, and scores after the
    first C are capped at the last of those.
    """
    count, places = len(inliers), np.arange(len(ranking.keys))
    known = np.flatnonzero(inliers >= 0)
    places[known] = known[reordered(inliers[known], ranking.scores[known])]
    found = np.full(len(places), np.nan, np.float32)
    found[known] = inliers[known]
    scores = np.clip(0.5 + 0.5 * ranking.scores, 0.0, 1.0) + np.nan_to_num(found)
    after = replace(ranking, scores=scores.astype(np.float32), inliers=found).take(places)
    if count:
        after.scores[:count] = np.maximum.accumulate(after.scores[:count][::-1])[::-1]
        after.scores[count:] = np.minimum(after.scores[count:], after.scores[count - 1])
    return after
