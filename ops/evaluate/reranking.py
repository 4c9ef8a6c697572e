"""The ways to re-rank the first candidates.

Each is a class made from a `Reranking` and the arrays of the pictures, and a line in `RERANKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.padding import padded
from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.ranking import Ranking, first_ranking, sorted_by_coattention, sorted_by_inliers
from landseer.ensemble.verify.verification import Located, VerificationSettings, verify
from landseer.ensemble.verify.verifier import SETTINGS
from landseer.ops.evaluate.arrays import CLUSTERS, FEATURES, LOCALS, POSITIONS, QUERY_VECTOR
from landseer.ops.evaluate.picture_arrays import PictureArrays
from landseer.ops.evaluate.ranked import Ranked

COATTENTION, NAIVE, SPATIAL = "coattention", "coattention-naive", "spatial"
CANDIDATES = 100
"""Default number of candidates that are re-ranked, as in a request."""
FUSING = (COATTENTION, NAIVE)
"""Re-rankers whose score can be fused with the first score."""
WEIGHT = 1.0
"""Default weight of the new score; the first score gets the rest."""


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """The re-ranking part of a method."""

    name: str
    """A key of `RERANKERS`."""
    candidates: int = CANDIDATES
    weight: float = WEIGHT

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.name}:{self.candidates}" + (f":{self.weight:g}" if self.weight != WEIGHT else "")


class Reranker:
    """Leaves the ranking as it is; the base of the others."""

    index_bytes: float = 0.0
    """Bytes per reference that re-ranking needs in addition to the index."""

    def rerank(self, query: int, ranked: Ranked) -> Ranked:
        """Return the ranking with its first candidates re-ranked. query: its number among all queries."""
        return ranked


class ByCoattention(Reranker):
    """Co-attention of the query's vector with the clusters of each candidate, by the served graph. Hu and Bors 2020."""

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
    """Naive co-attention, without clusters: with every local feature of a candidate. For comparison."""

    def __init__(self, reranking: Reranking, side: PictureArrays) -> None:
        self._reranking, self._score = reranking, side.coattention_of_all()
        self._queries = list(side.of_queries(QUERY_VECTOR))
        # One picture at a time: features are more than twice as large before the reduction.
        self._clusters, self._counts = stacked([side.reduced(one) for one in side.of_references(FEATURES)])
        self.index_bytes = self._clusters[:1].nbytes + self._counts[:1].nbytes


class BySpace(Reranker):
    """Spatial verification of D2R: by inliers of an affine map of the query, then by the first score."""

    def __init__(self, reranking: Reranking, side: PictureArrays, settings: VerificationSettings | None = None) -> None:
        """settings: of the verification; by default those of a search."""
        self._candidates, self._settings = reranking.candidates, settings or SETTINGS
        self._queries = located(side.of_queries(LOCALS), side.of_queries(POSITIONS))
        self._references = located(side.of_references(LOCALS), side.of_references(POSITIONS))
        halves = sum(one.features.nbytes / 2 + one.positions.nbytes for one in self._references)
        self.index_bytes = halves / len(self._references)

    def rerank(self, query: int, ranked: Ranked) -> Ranked:
        """See Reranker.rerank."""
        candidates = [self._references[row] for row in ranked.rows[: self._candidates]]
        new = sorted_by_inliers(_first(ranked), verify(self._queries[query], candidates, self._settings))
        return Ranked(new.keys, new.scores)


def located(descriptors: Iterable[NDArray[Any]], positions: Iterable[NDArray[Any]]) -> list[Located]:
    """Return the local descriptors [n, D] of pictures with their positions [n, 2]."""
    pairs = zip(descriptors, positions, strict=True)
    return [Located(features=features.astype(np.float32), positions=places) for features, places in pairs]


def fused(ranked: Ranked, found: Coattention, weight: float) -> Ranked:
    """Return the ranking with its first candidates re-ranked as in a search (`ensemble.search.ranking`)."""
    new = sorted_by_coattention(_first(ranked), found, weight)
    return Ranked(new.keys, new.scores)


def _first(ranked: Ranked) -> Ranking:
    return first_ranking(ranked.rows, ranked.scores.astype(np.float32))


def stacked(vectors: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
    """Return the vectors [k, P] of N pictures as one zero-padded array [N, K, P], and their counts [N]."""
    counts = np.array([len(one) for one in vectors], np.int32)
    most = max(1, int(counts.max(initial=0)))
    return np.stack([padded(one.astype(np.float16), most) for one in vectors]), counts


RERANKERS: Mapping[str, Callable[[Reranking, PictureArrays], Reranker]] = {
    COATTENTION: ByCoattention,
    NAIVE: ByAllFeatures,
    SPATIAL: BySpace,
}
"""By the name on the command line."""
