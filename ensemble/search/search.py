"""How a search is answered: describe, search, expand, search again, re-rank, and read the hits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import CodebookMissing, LocalFeaturesMissing
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.search.coattention import coattend
from landseer.ensemble.search.describe import FOR_EXPLAIN, FOR_LOCAL, FOR_SEARCH, Described, Describer
from landseer.ensemble.search.expansion.dqe import NEGATIVES
from landseer.ensemble.search.expansion.methods import DQE, LATTQE, classical
from landseer.ensemble.search.expansion.served_lattqe import expand
from landseer.ensemble.search.plan import SPATIAL, Expand, IdQuery, PictureQuery, Rerank, SearchPlan, VectorQuery
from landseer.ensemble.search.quality import observe_kept, observe_search
from landseer.ensemble.search.ranking import (
    Ranking,
    expanded_ranking,
    first_ranking,
    reranked,
    verified,
    with_first,
    words_ranking,
)
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.record import Record
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.verify.verifier import located


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is searched for."""

    vector: NDArray[np.float32]
    """[D], unit norm."""
    query_vector: NDArray[np.float32] | None = None
    """[P], unit norm, for co-attention; a raw descriptor has none."""
    key: int | None = None
    """Its own key if it is indexed: it is left out of its hits."""
    picture: Described | None = None
    """If the query is a picture."""
    local_features: LocalFeatures | None = None
    """If something that was asked for needs them and it has them."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A search's answer, before it becomes a message."""

    ranking: Ranking
    records: list[Record]
    """One for each hit."""
    picture: Described | None
    index_size: int
    models: tuple[str, ...]
    """Names of the graphs that took part."""
    untrained: tuple[str, ...]
    """Parts with seeded weights that shaped the answer."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search under way. Expansion and re-ranking that fail are left out and noted in `stages`."""

    plan: SearchPlan
    collection: Collection
    profile: Profile
    """Of what Triton serves now, or of the collection while Triton is away."""
    stages: Stages
    triton: Triton
    describer: Describer
    metrics: Metrics

    async def run(self) -> Found:
        """Answer the plan. NotFound, InvalidInput, and what describing and searching raise."""
        size = self.collection.size
        subject = await self._subject()
        ranking = await self._first(subject)
        if self.plan.expand is not None and len(ranking.keys):
            ranking = await self._expanded(self.plan.expand, subject, ranking)
        if self.plan.rerank is not None and len(ranking.keys):
            ranking = await self._reranked(self.plan.rerank, subject, ranking)
        observe_search(self.metrics, self.plan, ranking)
        ranking, records = await self._read(ranking.take(slice(self.plan.top_k)), subject)
        return Found(
            ranking=ranking,
            records=records,
            picture=subject.picture,
            index_size=size,
            models=_models(self.plan, ranking),
            untrained=_untrained(self.profile, self.plan, ranking),
        )

    async def _subject(self) -> Subject:
        query = self.plan.query
        if isinstance(query, VectorQuery):
            return Subject(vector=query.vector)
        if isinstance(query, IdQuery):
            stored = await self.collection.get(query.id)
            record = stored.record
            vector, query_vector = (x.astype(np.float32) for x in (record.descriptor, record.query_vector))
            local = await self.collection.local_features(stored.key) if self.plan.needs_local_features else None
            return Subject(vector=vector, query_vector=query_vector, key=stored.key, local_features=local)
        picture = await self._describe(query)
        return Subject(
            vector=picture.descriptor,
            query_vector=picture.query_vector,
            picture=picture,
            local_features=picture.local_features,
        )

    async def _describe(self, query: PictureQuery) -> Described:
        explain = self.plan.explain
        outputs = (
            *(FOR_EXPLAIN if explain else FOR_SEARCH),
            *(FOR_LOCAL if self.plan.needs_local_features else ()),
        )
        outputs = tuple(dict.fromkeys(outputs))
        return await self.describer.describe(
            query.data, self.profile, self.stages, outputs=outputs, region=query.region, thumbnail=explain
        )

    async def _first(self, subject: Subject) -> Ranking:
        depth = _depth(self.plan)
        wanted = depth + (subject.key is not None)
        work = self._by_words if self.plan.by_words else self._by_vector
        ranking = await self.stages.required("search", lambda _: work(subject, wanted))
        return ranking.without(subject.key).take(slice(depth))

    async def _by_vector(self, subject: Subject, wanted: int) -> Ranking:
        hits = await self.collection.search(subject.vector, wanted)
        return first_ranking(hits.keys, hits.scores)

    async def _by_words(self, subject: Subject, wanted: int) -> Ranking:
        words, asked = await self._asked(subject)
        hits = await words.search(asked, wanted)
        return words_ranking(hits.keys, hits.scores)

    async def _asked(self, subject: Subject) -> tuple[WordIndex, Binary]:
        """Return the index of words and the query's. A server without a codebook has refused the request before."""
        words = self.collection.words
        if words is None:
            raise CodebookMissing("this server has no visual words")
        return words, await words.asked(_local_features(subject))

    async def _expanded(self, how: Expand, subject: Subject, before: Ranking) -> Ranking:
        """Search again with an expanded query; if that fails, keep the first ranking."""

        async def run(left: Deadline) -> NDArray[np.float32]:
            neighbours = await self.collection.descriptors(before.keys[: how.neighbours])
            if not len(neighbours):
                return subject.vector
            if how.method == LATTQE:
                return await expand(self.triton, subject.vector, neighbours, left, most=self.profile.sizes.neighbours)
            lowest = await self._lowest(subject) if how.method == DQE else neighbours[:0]
            vector = subject.vector
            return await asyncio.to_thread(classical, how.method, vector, neighbours, alpha=how.alpha, lowest=lowest)

        vector = await self.stages.optional("expand", run)
        if vector is None:
            return before
        wanted = _depth(self.plan) + (subject.key is not None)
        hits = await self.stages.optional("research", lambda _: self.collection.search(vector, wanted))
        if hits is None:
            return before
        after = expanded_ranking(hits.keys, hits.scores, before).without(subject.key)
        observe_kept(self.metrics, "expand", before, after, wanted=self.plan.top_k)
        return after

    async def _lowest(self, subject: Subject) -> NDArray[np.float32]:
        """Return the descriptors that are ranked last: the nearest to the opposite."""
        hits = await self.collection.search(-subject.vector, NEGATIVES)
        return await self.collection.descriptors(hits.keys[hits.keys != subject.key])

    async def _reranked(self, how: Rerank, subject: Subject, before: Ranking) -> Ranking:
        """Sort the first hits anew; if that fails, keep the ranking."""

        async def run(left: Deadline) -> Ranking:
            count, ranking = min(how.candidates, len(before.keys)), before
            if how.shared_words:
                words, asked = await self._asked(subject)
                shared = await words.sharing(asked, before.keys[:count], least=how.shared_words)
                count, ranking = int(np.count_nonzero(shared)), with_first(before, shared)
            if not count:
                return before
            if how.method == SPATIAL:
                return await self._verified(subject, ranking, count)
            return await self._attended(subject, ranking, count, how.weight, left)

        after = await self.stages.optional("rerank", run)
        if after is None:
            return before
        observe_kept(self.metrics, "rerank", before, after, wanted=self.plan.top_k)
        return after

    async def _attended(self, subject: Subject, before: Ranking, count: int, weight: float, left: Deadline) -> Ranking:
        """Sort the first `count` by co-attention. A raw descriptor, which has no vector for that, is refused before."""
        if subject.query_vector is None:
            return before
        clusters, counts = await self.collection.clusters(before.keys[:count])
        most = self.profile.sizes.candidates
        found = await coattend(self.triton, subject.query_vector, clusters, counts, left, most=most)
        return reranked(before, found, weight)

    async def _verified(self, subject: Subject, before: Ranking, count: int) -> Ranking:
        """Sort the first `count` by the inliers of spatial verification."""
        query = located(_local_features(subject))
        return verified(before, await self.collection.verifier.inliers(query, before.keys[:count]))

    async def _read(self, ranking: Ranking, subject: Subject) -> tuple[Ranking, list[Record]]:
        """Read the hits' records. A picture deleted since the search is left out: the store is the truth."""
        with self.stages.time("store"):
            # Vectors are needed only to explain, and for global scores that the first search did not give.
            vectors = self.plan.explain or self.plan.expand is not None or self.plan.by_words
            stored = await self.collection.pictures(ranking.keys, thumbnails=self.plan.explain, vectors=vectors)
        there = np.array([place for place, found in enumerate(stored) if found is not None], np.int64)
        records = [found.record for found in stored if found is not None]
        return _with_global(ranking.take(there), subject, records), records


def _local_features(subject: Subject) -> LocalFeatures:
    if subject.local_features is None:
        raise LocalFeaturesMissing("the query picture was indexed without local features; index it again")
    return subject.local_features


def _with_global(ranking: Ranking, subject: Subject, records: list[Record]) -> Ranking:
    """Fill in the global scores of hits that only the expanded query found."""
    missing = np.flatnonzero(np.isnan(ranking.global_))
    if not len(missing):
        return ranking
    vectors = np.stack([records[place].descriptor for place in missing]).astype(np.float32)
    filled = ranking.global_.copy()
    filled[missing] = vectors @ subject.vector
    return replace(ranking, global_=filled)


def _depth(plan: SearchPlan) -> int:
    """How many hits the searches must give for all that follows."""
    neighbours = plan.expand.neighbours if plan.expand else 0
    candidates = plan.rerank.candidates if plan.rerank else 0
    return max(plan.top_k, neighbours, candidates)


def _models(plan: SearchPlan, ranking: Ranking) -> tuple[str, ...]:
    described = isinstance(plan.query, PictureQuery)
    return (
        *(("backbone",) if described else ()),
        *(("detector",) if described and plan.explain else ()),
        *(("lattqe",) if _by_lattqe(plan, ranking) else ()),
        *(("cluster", "coattention") if _ran(ranking.coattention) else ()),
    )


def _untrained(profile: Profile, plan: SearchPlan, ranking: Ranking) -> tuple[str, ...]:
    """Return the untrained parts that shaped an answer.

    LAttQE, the reduction of co-attention and the projection of local features shape an answer only if they ran;
    attention and detector only the boxes and maps of an explanation. All other parts shape every vector.
    """
    ran = {"lattqe": _by_lattqe(plan, ranking), "reduction": _ran(ranking.coattention)}
    ran["locals"] = _ran(ranking.inliers) or _ran(ranking.words)
    ran |= dict.fromkeys(("attention", "detector"), plan.explain)
    return tuple(part for part in profile.untrained if ran.get(part, True))


def _by_lattqe(plan: SearchPlan, ranking: Ranking) -> bool:
    return plan.expand is not None and plan.expand.method == LATTQE and _ran(ranking.expanded)


def _ran(scores: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(scores).any())
