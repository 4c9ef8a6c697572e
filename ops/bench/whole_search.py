"""Whole searches by id, as callers ask for them: by one caller, and by four at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.search.ranking import SAME
from landseer.ops.bench.asking import CANDIDATES, TOP_K, whole
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.statistics import Round
from landseer.v1.search_pb2 import SearchResponse

CALLERS = 4


@dataclass(frozen=True, kw_only=True)
class SearchWay:
    """What a search asks for."""

    name: str
    options: Mapping[str, Any]
    """Of `SearchClient.search`."""
    verifies: bool = False
    """Whether keypoints verify the hits."""
    whole: bool = False
    """Whether it expands the query and re-ranks the hits, so that the limits hold for it."""


WAYS = (
    SearchWay(name="`--first-stage global --rerank none`", options={"first_stage": "global", "reranking": "none"}),
    SearchWay(name="`--rerank coattention`", options={"reranking": "coattention"}),
    SearchWay(
        name="`--rerank coattention --expansion lattqe`",
        options={"reranking": "coattention", "expansion": "lattqe"},
        whole=True,
    ),
    SearchWay(name="the default", options={}, verifies=True, whole=True),
    SearchWay(name="`--expansion lattqe`", options={"expansion": "lattqe"}, verifies=True, whole=True),
)
"""A request has one re-ranking, co-attention or spatial verification, so the limits hold for each with an expansion."""


@dataclass(frozen=True, kw_only=True)
class VerifiedHits:
    """What verification had to do, of a search on average."""

    compared: float
    """Of the first `CANDIDATES` hits, those that were compared."""
    same: float
    """Of these, those that keypoints are sure of."""


@dataclass(frozen=True, kw_only=True)
class WayTimes:
    """The searches of one way."""

    way: SearchWay
    first: Round | None
    """By one caller, with nothing of the store in memory before the first; None if the system does not permit that."""
    alone: Round
    """By one caller, who asked for the same before."""
    together: Round
    """By `CALLERS` at once."""
    stages: Mapping[str, float]
    """Mean seconds of each stage in `alone`, by the orchestrator."""
    verified: VerifiedHits | None
    """None if it does not verify."""


class WholeSearches:
    """Searches an orchestrator by ids, in each of `WAYS`."""

    def __init__(self, client: BlockingSearchClient, ids: Sequence[str], *, rounds: int) -> None:
        """rounds: how often each way asks for all ids by one caller, and as often again by all callers together."""
        self._client, self._ids, self._rounds = client, ids, rounds

    def times(self, evict: Callable[[], None]) -> Iterator[WayTimes]:
        """Yield the times of each way. evict: drops the store from memory; OSError if that is not permitted.

        OpsError for an answer that is degraded or empty.
        """
        for way in WAYS:
            yield self._times(way, evict)

    def _times(self, way: SearchWay, evict: Callable[[], None]) -> WayTimes:
        stages: list[Mapping[str, float]] = []

        def ask(id: str) -> None:
            found = self._search(way, id)
            stages.append({one.stage: one.seconds for one in found.timings})

        permitted = _permitted(evict)
        first = Contender(name=way.name, callers=(ask,)).turn(self._ids)
        stages.clear()
        requests = list(self._ids) * self._rounds
        alone = Contender(name=way.name, callers=(ask,)).turn(requests)
        means = _means(stages)
        together = Contender(name=way.name, callers=(ask,) * CALLERS).turn(requests)
        return WayTimes(
            way=way,
            first=first if permitted else None,
            alone=alone,
            together=together,
            stages=means,
            verified=self._verified(way) if way.verifies else None,
        )

    def _verified(self, way: SearchWay) -> VerifiedHits:
        """Search once more, for all candidates: what was compared is not told of the others."""
        found = [self._search(way, id, top_k=CANDIDATES) for id in self._ids]
        compared = [[hit.verification for hit in one.hits if hit.HasField("verification")] for one in found]
        return VerifiedHits(
            compared=sum(map(len, compared)) / len(found),
            same=sum(one.probability >= SAME for some in compared for one in some) / len(found),
        )

    def _search(self, way: SearchWay, id: str, *, top_k: int = TOP_K) -> SearchResponse:
        return whole(id, self._client.search(id, top_k=top_k, **way.options))


def _permitted(evict: Callable[[], None]) -> bool:
    try:
        evict()
    except OSError:
        return False
    return True


def _means(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each stage over all searches, those that lack it too."""
    names = dict.fromkeys(name for one in stages for name in one)
    return {name: sum(one.get(name, 0.0) for one in stages) / len(stages) for name in names}
