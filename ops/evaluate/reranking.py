"""The ways to rank the first candidates anew.

Each is a class made of a `Reranking` and of what is known of the pictures, and a line in `RERANKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.padding import padded
from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.ranking import Ranking, first_ranking, reranked, verified
from landseer.ensemble.verify.verification import Located, Settings, verify
from landseer.ensemble.verify.verifier import SETTINGS
from landseer.ops.evaluate.arrays import CLUSTERS, FEATURES, LOCALS, POSITIONS, QUERY_VECTOR
from landseer.ops.evaluate.picture_arrays import PictureArrays
from landseer.ops.evaluate.ranked import Ranked

COATTENTION, NAIVE, SPATIAL = "coattention", "coattention-naive", "spatial"
CANDIDATES = 100
"""How many are ranked anew unless a row says otherwise; a request's default, too."""
FUSING = (COATTENTION, NAIVE)
"""Those whose score can be fused with the one before."""
WEIGHT = 1.0
"""Of the new score against the one before, likewise."""


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """The part of a row that comes last."""

    name: str
    """A key of `RERANKERS`."""
    candidates: int = CANDIDATES
    weight: float = WEIGHT

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.name}:{self.candidates}" + (f":{self.weight:g}" if self.weight != WEIGHT else "")


class Reranker:
    """Leaves everything as it is; others say what they do instead."""

    index_bytes: float = 0.0
    """Of a reference, kept beside the index for it."""

    def rerank(self, query: int, ranked: Ranked) -> Ranked:
        """Return the ranking of a query, by its number among all, with its head ranked anew."""
        return ranked


class ByCoattention(Reranker):
    """Hu and Bors 2020: the query's vector against the clusters of each candidate, by the graph that is served."""

    def __init__(self, reranking: Reranking, side: PictureArrays) -> None:
        self._reranking, self._score = reranking, side.coattention()
        self._queries = list(side.of_queries(QUERY_VECTOR))
        self._clusters, self._counts = stacked(list(side.of_references(CLUSTERS)))
        self.index_bytes = self._clusters[:1].nbytes + self._counts[:1].nbytes

    def rerank(self, query: int, ranked: Ranked) -> Ranked:
        """See Reranker.rerank."""
        rows = ranked.rows[: self._reranking.candidates]
        if not len(rows):
            return ranked
        found = self._score(self._queries[query], self._clusters[rows], self._counts[rows])
        return fused(ranked, found, self._reranking.weight)


class ByAllFeatures(ByCoattention):
    """The same without clusters, "naive": every local feature of a candidate is one. For comparison alone."""

    def __init__(self, reranking: Reranking, side: PictureArrays) -> None:
        self._reranking, self._score = reranking, side.coattention_of_all()
        self._queries = list(side.of_queries(QUERY_VECTOR))
        # One picture after the other: the features before the reduction are more than twice as large.
        self._clusters, self._counts = stacked([side.reduced(one) for one in side.of_references(FEATURES)])
        self.index_bytes = self._clusters[:1].nbytes + self._counts[:1].nbytes


class BySpace(Reranker):
    """By how many local descriptors lie where one affine map of the query puts them, then by the score before: D2R."""

    def __init__(self, reranking: Reranking, side: PictureArrays, settings: Settings | None = None) -> None:
        """settings: of the verification; those of a search unless they are given."""
        self._candidates, self._settings = reranking.candidates, settings or SETTINGS
        self._queries = located(side.of_queries(LOCALS), side.of_queries(POSITIONS))
        self._references = located(side.of_references(LOCALS), side.of_references(POSITIONS))
        halves = sum(one.features.nbytes / 2 + one.positions.nbytes for one in self._references)
        self.index_bytes = halves / len(self._references)

    def rerank(self, query: int, ranked: Ranked) -> Ranked:
        """See Reranker.rerank."""
        candidates = [self._references[row] for row in ranked.rows[: self._candidates]]
        new = verified(_first(ranked), verify(self._queries[query], candidates, self._settings))
        return Ranked(new.keys, new.scores)


def located(descriptors: Iterable[NDArray[Any]], positions: Iterable[NDArray[Any]]) -> list[Located]:
    """Return the local descriptors [n, D] of pictures and where they are [n, 2]."""
    pairs = zip(descriptors, positions, strict=True)
    return [Located(features=features.astype(np.float32), positions=places) for features, places in pairs]


def fused(ranked: Ranked, found: Coattention, weight: float) -> Ranked:
    """Return a ranking whose first are ranked anew as a search does it (`ensemble.ranking.reranked`)."""
    new = reranked(_first(ranked), found, weight)
    return Ranked(new.keys, new.scores)


def _first(ranked: Ranked) -> Ranking:
    return first_ranking(ranked.rows, ranked.scores.astype(np.float32))


def stacked(vectors: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
    """Return the vectors [k, P] of pictures as one array [N, K, P], zero beyond each picture's count, and those [N]."""
    counts = np.array([len(one) for one in vectors], np.int32)
    most = max(1, int(counts.max(initial=0)))
    return np.stack([padded(one.astype(np.float16), most) for one in vectors]), counts


RERANKERS: Mapping[str, Callable[[Reranking, PictureArrays], Reranker]] = {
    COATTENTION: ByCoattention,
    NAIVE: ByAllFeatures,
    SPATIAL: BySpace,
}
"""By the name on the command line."""
