"""Searches of the report: one caller, every query by every row, row after row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.client.blocking import BlockingSearchClient
from landseer.client.picture_files import picture_id
from landseer.ensemble.config import Limits
from landseer.ensemble.evaluation import Ids
from landseer.ops.bench.statistics import turns
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset, Query
from landseer.ops.evaluate.turning import shown
from landseer.v1.search_pb2 import SearchResponse

SHORT_LIST = 100
"""Hits of a search, as many as the default verifies; so the first ones are those of a request without options."""
FEW = 10
"""Hits of a timed search, as many as a request without options gets."""
NOT_VERIFIED = -1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to search."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `SearchClient.search`; none for the default of the service."""
    turn: int = 0
    """Degrees by which the query is turned clockwise."""


DEFAULT = Row(name="default")
GLOBAL = Row(name="none: global descriptor alone", options={"first_stage": "global", "reranking": "none"})
WORDS = Row(name="words alone", options={"first_stage": "words", "reranking": "none"})
BOTH = Row(name="both, not verified", options={"first_stage": "both", "reranking": "none"})
UPRIGHT = (DEFAULT, GLOBAL, WORDS, BOTH)
TURNED = tuple(Row(name=f"default, query turned by {turn} degrees", turn=turn) for turn in (90, 180, 270))
TIMED = (DEFAULT, GLOBAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The answer to one query."""

    order: Ids
    """[n], rows of the references, best first, without the query itself."""
    probabilities: NDArray[np.float64]
    """[n], of the same thing; NaN for a hit that was not verified."""
    inliers: NDArray[np.int64]
    """[n]; `NOT_VERIFIED` for a hit that was not verified."""
    seconds: float
    """Measured by the caller."""
    stages: Mapping[str, float]
    """Seconds by stage, measured by the service; `total` among them."""


class Asker:
    """Searches one data set in a service that holds exactly its references."""

    def __init__(self, client: BlockingSearchClient, data: Dataset, *, hits: int) -> None:
        """hits: per search, without the query itself."""
        self._client, self._hits = client, hits
        self._rows = {picture_id(path): row for row, path in enumerate(data.references)}
        self._queries = list(zip(data.queries, data.own_rows(), strict=True))

    def all(self, rows: Sequence[Row], advance: Callable[[], None] = lambda: None) -> dict[str, list[Found]]:
        """Search for every query by every row, in an order that changes. Returns the answers by the row's name."""
        found: dict[str, list[Found]] = {row.name: [] for row in rows}
        for order, (query, own) in zip(turns(rows, len(self._queries)), self._queries, strict=True):
            for row in order:
                found[row.name].append(self.ask(query, own, row))
                advance()
        return found

    def ask(self, query: Query, own: int | None, row: Row) -> Found:
        """Search once, always with the picture. OpsError if the answer lacks a stage.

        own: the row of the query if it is a reference. It is dropped from the hits. A search by its id would drop it,
        too, but has neither the descriptors of its keypoints nor the work of describing a picture.
        """
        picture = query.shot.path.read_bytes()
        if row.turn:
            picture, _ = shown(_turned(query, row.turn).shot, picture, Limits())
        began = time.perf_counter()
        answer = self._client.search(picture, top_k=self._hits + (own is not None), **row.options)
        seconds = time.perf_counter() - began
        if answer.degradations:
            left_out = answer.degradations[0]
            raise OpsError(
                f"the service left out {left_out.stage} for {query.shot.path} ({left_out.reason}), so the figures "
                f"would not be those of {row.name}; run again when the machine is less busy"
            )
        return self._found(answer, own, seconds)

    def _found(self, answer: SearchResponse, own: int | None, seconds: float) -> Found:
        hits = [hit for hit in answer.hits if self._rows[hit.id] != own][: self._hits]
        verified = [hit.verification if hit.HasField("verification") else None for hit in hits]
        return Found(
            order=np.array([self._rows[hit.id] for hit in hits], np.int64),
            probabilities=np.array([np.nan if one is None else one.probability for one in verified], np.float64),
            inliers=np.array([NOT_VERIFIED if one is None else one.inliers for one in verified], np.int64),
            seconds=seconds,
            stages={one.stage: one.seconds for one in answer.timings},
        )


def _turned(query: Query, turn: int) -> Query:
    [turned] = Dataset(name="", queries=[query], references=[]).turned(turn).queries
    return turned
