"""Sends the same search without re-ranking and with it, one right after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.bench.page_cache import disk_bytes
from landseer.ops.errors import OpsError
from landseer.v1.search_pb2 import (
    RERANKING_METHOD_COATTENTION,
    RERANKING_METHOD_NONE,
    Reranking,
    SearchResponse,
)

CANDIDATES = 100
"""Candidates that the first search passes to co-attention."""
TOP_K = 10
STAGE = "rerank"
_PLAIN = Reranking(method=RERANKING_METHOD_NONE)
_RERANKED = Reranking(method=RERANKING_METHOD_COATTENTION, candidates=CANDIDATES)


@dataclass(frozen=True, kw_only=True)
class TimedAnswer:
    """Measurements of one search."""

    seconds: float
    """Measured by the caller."""
    stages: Mapping[str, float]
    """Seconds by stage, measured by the orchestrator."""
    disk: int
    """Bytes that the orchestrator read from the disk meanwhile."""
    best: float
    """The score of the first hit."""


@dataclass(frozen=True, kw_only=True)
class AnswerPair:
    """One query, searched both ways."""

    plain: TimedAnswer
    reranked: TimedAnswer


class IdAsker:
    """Searches an orchestrator by the ids of indexed entries, so that no picture needs to be described."""

    def __init__(self, client: BlockingSearchClient, *, pid: int) -> None:
        """client: of the orchestrator; pid: the orchestrator's process id."""
        self._client, self._pid = client, pid

    def pairs(
        self, ids: Sequence[str], *, alternate: bool, before: Callable[[], None] = lambda: None
    ) -> list[AnswerPair]:
        """Search for each id both ways; `before` is called before each search.

        alternate: whether every second id is searched without re-ranking first. Otherwise re-ranking always comes
        first and pays for reading what both searches read.
        """
        return [
            self._pair(id, plain_first=alternate and bool(place % 2), before=before) for place, id in enumerate(ids)
        ]

    def _pair(self, id: str, *, plain_first: bool, before: Callable[[], None]) -> AnswerPair:
        order = (_PLAIN, _RERANKED) if plain_first else (_RERANKED, _PLAIN)
        answers = []
        for how in order:
            before()
            answers.append(self.ask(id, how))
        plain, reranked = answers if plain_first else reversed(answers)
        return AnswerPair(plain=plain, reranked=reranked)

    def ask(self, id: str, how: Reranking) -> TimedAnswer:
        """Search once. OpsError if the answer is degraded or empty."""
        read, began = disk_bytes(self._pid), time.perf_counter()
        found = self._client.search(id, top_k=TOP_K, first_stage="global", reranking=how)
        seconds = time.perf_counter() - began
        whole(id, found)
        return TimedAnswer(
            seconds=seconds,
            stages={one.stage: one.seconds for one in found.timings},
            disk=disk_bytes(self._pid) - read,
            best=getattr(found.hits[0].scores, "global"),
        )


def whole(id: str, found: SearchResponse) -> SearchResponse:
    """Return the answer to a search by an id. OpsError if it is degraded or empty."""
    if found.degradations or not found.hits:
        why = "; ".join(f"{one.stage} ({one.reason})" for one in found.degradations) or "hits"
        raise OpsError(f"{id} was answered without {why}")
    return found


def added(pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
    """Return how many ms longer each search took with re-ranking, measured by the caller."""
    return np.array([pair.reranked.seconds - pair.plain.seconds for pair in pairs]) * 1e3


def staged(pairs: Sequence[AnswerPair], stage: str = STAGE) -> NDArray[np.float64]:
    """Return the ms of a stage in the searches with re-ranking, measured by the orchestrator."""
    return np.array([pair.reranked.stages[stage] for pair in pairs]) * 1e3


def added_by(pairs: Sequence[AnswerPair], stage: str) -> NDArray[np.float64]:
    """Return how many ms longer a stage that both searches have took with re-ranking."""
    return np.array([pair.reranked.stages[stage] - pair.plain.stages[stage] for pair in pairs]) * 1e3


def mebibytes(pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
    """Return the MiB that each search with re-ranking read from the disk."""
    return np.array([pair.reranked.disk for pair in pairs]) / 2**20
