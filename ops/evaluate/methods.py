"""The ranking methods that an evaluation compares.

A ranker is a function from the vectors (`Space`) to a `Search`, and a line in `RANKERS`. Two parts of a method are
elsewhere: database-side augmentation changes the vectors that are searched (`database.py`), and re-ranking reorders the
first candidates (`reranking.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from landseer.ensemble.evaluation import Ids
from landseer.ensemble.search.expansion.dqe import NEGATIVES
from landseer.ensemble.search.expansion.methods import (
    DEFAULTS,
    LATTQE,
    RANK_CURVE,
    VERIFIED,
    VERIFIED_NEIGHBOURS,
    classical,
)
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ensemble.search.expansion.weights import ALPHA
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.diffusion import QUERY_NEIGHBOURS, NeighbourGraph, diffuse
from landseer.ops.evaluate.keypoints import by_both, by_keypoint_words
from landseer.ops.evaluate.picture_arrays import PictureArrays
from landseer.ops.evaluate.ranked import Floats, Ranked, in_order
from landseer.ops.evaluate.reranking import RERANKERS, Reranker, Reranking
from landseer.ops.evaluate.space import FEW, Expander, Search, Space
from landseer.ops.evaluate.verified_hits import by_verified
from landseer.ops.evaluate.words import (
    ASMK,
    IN_FULL,
    POOLED,
    RASMK,
    WORDS,
    by_asmk,
    by_rasmk,
    by_regions,
    by_residuals,
    by_shared_words,
)

NONE, DIFFUSION, SIFT = "none", "diffusion", "sift"
DEFAULT, ONCE, BOTH, KEYPOINT_WORDS = "default", "once", "both", "keypoints"
"""A request without any option, one without expansion, global descriptor and words merged, and words alone."""
WHOLE = (SIFT, DEFAULT, ONCE, VERIFIED, BOTH, KEYPOINT_WORDS)
"""Rows that take no other part, and no numbers but `VERIFIED`."""
DATABASE_NAMES: Mapping[str, str] = {
    "aqe": "adba",
    "aqewd": "adbawd",
    "aqewd-dir": "adbawd-dir",
    "alphaqe": "alphadba",
    "dqe": "ddba",
    RANK_CURVE: "rank-curve-dba",
    LATTQE: "lattdba",
}
"""The papers' names for database-side augmentation by a method; `landseer augment --method` takes the method's name."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table."""

    name: str
    """A key of `RANKERS`, or `SIFT`."""
    neighbours: int = 0
    """Neighbours that expand the query, or that each reference has in the graph of diffusion."""
    alpha: float = ALPHA
    query_neighbours: int = QUERY_NEIGHBOURS
    """Neighbours of the query that diffusion starts from."""
    database: Recipe | None = None
    """How the references are augmented."""
    reranking: Reranking | None = None
    """How the first candidates are re-ranked."""
    words: int = 0
    """Size of the codebook, for methods that rank by visual words; 0 for as many words as its photographs allow."""

    def __str__(self) -> str:
        """The method as written on the command line."""
        extra = {"alphaqe": f":{self.alpha:g}", DIFFUSION: f":{self.query_neighbours}"}.get(self.name, "")
        count = self.neighbours or self.words
        return self._with_others(f"{self.name}:{count}{extra}" if count else self.name)

    @property
    def family(self) -> str:
        """The name without the number of neighbours of the query."""
        return self._with_others(f"alphaqe, alpha {self.alpha:g}" if self.name == "alphaqe" else self.name)

    def _with_others(self, ranking: str) -> str:
        parts = [] if self.name == NONE else [ranking]
        if self.database is not None:
            parts.insert(0, str(self.database).replace(self.database.method, DATABASE_NAMES[self.database.method], 1))
        parts += [] if self.reranking is None else [str(self.reranking)]
        return "+".join(parts) or NONE


NO_EXPANSION = Method(name=NONE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """The ranking of one query, and its cost."""

    order: Ids
    """The rows of all references, best first, without the query's own."""
    seconds: float
    """Its share of the search of its block, and its re-ranking. Work done once for all queries does not count."""
    index_bytes: float
    """Size of the index per reference."""


Ranker = Callable[[Method, Space], Search]


def rankings(
    method: Method, queries: Floats, references: Floats | Database, own: Sequence[int | None], *, lattqe: Expander
) -> Iterator[Ids]:
    """Yield the rows of all references for each query, best first, without the query's own.

    queries: [Q, D]; references: [N, D]; both of unit norm. Ties keep the order of the rows. ValueError if the
    references are not augmented as the method says.
    """
    database = references if isinstance(references, Database) else Database(vectors=references)
    found = answers(method, Space(queries=queries, database=database, own=own, lattqe=lattqe))
    return (answer.order for answer in found)


def answers(method: Method, space: Space) -> Iterator[Answer]:
    """Yield the answer to each query. ValueError if the references are not augmented as the method says."""
    recipe = space.database.recipe
    if recipe != method.database:
        raise ValueError(f"got references augmented by {recipe} for {method}; expected {method.database}")
    return answered(RANKERS[method.name](method, space), _reranker(method, space.arrays), space)


def _reranker(method: Method, side: PictureArrays) -> Reranker:
    how = method.reranking
    return Reranker() if how is None else RERANKERS[how.name](how, side)


def answered(search: Search, reranker: Reranker, space: Space) -> Iterator[Answer]:
    """Yield the answer to each query of a space: search, then re-rank."""
    kept = search.index_bytes + reranker.index_bytes
    for block in space.blocks(search.block):
        begun = time.perf_counter()
        found = search.rank(block)
        share = (time.perf_counter() - begun) / max(1, len(found))
        for place, ranked in enumerate(found):
            begun = time.perf_counter()
            order = reranker.rerank(block.first + place, ranked).rows
            yield Answer(order=order, seconds=share + time.perf_counter() - begun, index_bytes=kept)


def _flat(space: Space) -> float:
    return space.database.vectors[:1].nbytes


def _plain(method: Method, space: Space) -> Search:
    """Rank by the cosine."""
    return Search(rank=by_cosine, index_bytes=_flat(space))


def _expanding(method: Method, space: Space) -> Search:
    """Rank, expand each query by its nearest neighbours, and rank again."""
    return Search(rank=partial(_again, method), index_bytes=_flat(space))


def _again(method: Method, block: Space) -> list[Ranked]:
    expanded = [_expanded(method, block, place, ranked.rows) for place, ranked in enumerate(by_cosine(block))]
    return by_cosine(replace(block, queries=np.stack(expanded)))


def _expanded(method: Method, block: Space, place: int, order: Ids) -> Floats:
    query: Floats = block.queries[place]
    neighbours = block.taken(place, order[: method.neighbours])
    if not len(neighbours):
        return query
    if method.name == LATTQE:
        return block.lattqe(query, neighbours)
    lowest = block.taken(place, order[-NEGATIVES:])
    return classical(method.name, query, neighbours, alpha=method.alpha, lowest=lowest)


def _diffusing(method: Method, space: Space) -> Search:
    """Rank by diffusion over the graph of the references."""
    graph = NeighbourGraph.over(space.database.vectors, neighbours=method.neighbours)

    def rank(block: Space) -> list[Ranked]:
        scores = diffuse(block.queries, graph, own=block.own, query_neighbours=method.query_neighbours)
        return in_order(scores, block.own)

    return Search(rank=rank, index_bytes=_flat(space), block=FEW)


def by_cosine(block: Space) -> list[Ranked]:
    """Rank the references for each query of a block by the cosine."""
    scores = np.asarray(block.queries @ block.database.vectors.T)
    for line, query, change in zip(scores, block.queries, block.changes, strict=True):
        line[change.rows] = change.vectors @ query
    return in_order(scores, block.own)


def _by_words(rank: Callable[[int, Space], Search]) -> Ranker:
    """Rank by shared visual words."""
    return lambda method, space: rank(method.words, space)


def _filtered(method: Method, space: Space) -> Search:
    """Rank by the cosine; pictures that share a visual word with the query come first."""
    return by_shared_words(method.words, space, by_cosine)


RANKERS: Mapping[str, Ranker] = {
    NONE: _plain,
    **dict.fromkeys(DEFAULTS, _expanding),
    DIFFUSION: _diffusing,
    ASMK: _by_words(by_asmk),
    RASMK: _by_words(by_rasmk),
    **{name: _by_words(partial(by_residuals, name)) for name in IN_FULL},
    **{name: _by_words(partial(by_regions, name)) for name in POOLED},
    WORDS: _filtered,
    KEYPOINT_WORDS: lambda method, space: by_keypoint_words(space),
    BOTH: lambda method, space: by_both(space, by_cosine),
    ONCE: lambda method, space: by_verified(space, by_cosine, neighbours=0),
    DEFAULT: lambda method, space: by_verified(
        space, by_cosine, neighbours=VERIFIED_NEIGHBOURS, nearest=DEFAULTS[LATTQE] if space.trained else 0
    ),
    VERIFIED: lambda method, space: by_verified(space, by_cosine, neighbours=method.neighbours),
}
"""By the method's name."""
