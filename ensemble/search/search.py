"""Answer a search: describe, first search, expansion, second search, re-ranking, grouping, reading the hits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import KEYPOINTS
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import IndexUnavailable
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.fields import Filtered
from landseer.ensemble.inference.contracts import PATCH_OUTPUTS
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.keypoints.extractor import Extractor
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.pictures.pictures import Prepared
from landseer.ensemble.search.admission import Lane
from landseer.ensemble.search.coattention import coattend
from landseer.ensemble.search.describe import FOR_EXPLAIN, FOR_LOCAL, FOR_SEARCH, DescribedPicture, Describer
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.ensemble.search.grouping import Grouped, grouped, grouped_by
from landseer.ensemble.search.nearest import nearest
from landseer.ensemble.search.plan import (
    GLOBAL,
    SPATIAL,
    WORDS,
    IdQuery,
    PictureQuery,
    RerankingPlan,
    SearchPlan,
    VectorQuery,
)
from landseer.ensemble.search.quality import observe_kept, observe_search
from landseer.ensemble.search.ranking import (
    Ranking,
    first_ranking,
    fused,
    sorted_by_coattention,
    sorted_by_evidence,
    sorted_by_inliers,
    words_ranking,
)
from landseer.ensemble.search.resolved_query import ResolvedQuery
from landseer.ensemble.search.second_search import Firsts, SecondSearch
from landseer.ensemble.search.shortlist import shortlisted, words_of
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.store.record import Record
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.verify.verifier import located

_NO_KEYS = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to a search, before it becomes a message."""

    ranking: Ranking
    records: list[Record]
    """One per hit."""
    others: list[list[str]]
    """Of each hit, the ids of the pictures that it stands for, best first."""
    vias: list[str]
    """Of each hit, the id of the one by which it was recognised; empty for most."""
    group_field: str | None
    """As in the plan."""
    values: list[str]
    """Of each hit, the value that its group has in common; empty without."""
    picture: DescribedPicture | None
    index_size: int
    matched: int | None
    """Number of pictures that the filter lets through; None without a filter."""
    sequence: int
    """Number of changes of the store: before the search on the first page, after it on a later one."""
    more: bool
    """Whether a page follows."""
    models: tuple[str, ...]
    """Names of the graphs that were used."""
    untrained: tuple[str, ...]
    """Untrained parts that affected the answer."""


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """A running search. If an optional stage fails, it is skipped and recorded in `stages`."""

    plan: SearchPlan
    collection: Collection
    profile: Profile
    """Of the models served now, or of the collection while Triton is unavailable."""
    stages: Stages
    triton: Triton
    lane: Lane
    """Of the calls of Triton that follow describing."""
    describer: Describer
    extractor: Extractor | None
    """None if the server has no keypoints."""
    metrics: Metrics

    async def run(self) -> SearchResult:
        """Run the plan. NotFound, InvalidInput, and errors of describing and searching."""
        if isinstance(self.plan.query, PictureQuery):
            # Mistakes in it are told before the picture is described.
            await self._filter()
        query = await self._resolve()
        filtered = await self._filter()
        selection, matched = (None, None) if filtered is None else (filtered.selection, filtered.matched)
        query = replace(query, selection=selection)
        size, before = self.collection.size, self.collection.applied
        ranking, by_words = await self._first_searches(query)
        expand = self.plan.expand
        if expand is not None and not expand.verified and len(ranking.keys):
            ranking, expanded = await self._second_search.by_neighbours(expand, query, ranking)
            if expand.method == LATTQE:
                query = replace(query, expanded=expanded)
        firsts = Firsts(ranking, by_words)
        if by_words is not None:
            ranking = fused(ranking, by_words)
        elif self.plan.first == WORDS:
            firsts = Firsts(ranking, ranking)
        if self.plan.rerank is not None and len(ranking.keys):
            ranking = await self._rerank(self.plan.rerank, query, ranking)
            if expand is not None and expand.verified:
                ranking = await self._second_search.by_verified(expand, self.plan.rerank, query, ranking, firsts)
        observe_search(self.metrics, self.plan, ranking)
        groups = await self._group(ranking)
        shown, more = self._page(groups.ranking)
        ranking, records = await self._read_records(shown, query)
        return SearchResult(
            ranking=ranking,
            records=records,
            others=await self._others(ranking, groups.others),
            vias=await self._vias(ranking),
            group_field=self.plan.group_field,
            values=[groups.values.get(key, "") for key in ranking.keys.tolist()],
            picture=query.picture,
            index_size=size,
            matched=matched,
            sequence=await self._sequence(before),
            more=more,
            models=self._models(ranking),
            untrained=self._untrained(ranking),
        )

    @property
    def _second_search(self) -> SecondSearch:
        return SecondSearch(
            plan=self.plan,
            collection=self.collection,
            profile=self.profile,
            stages=self.stages,
            triton=self.triton,
            lane=self.lane,
            metrics=self.metrics,
        )

    async def _sequence(self, before: int) -> int:
        """Return the number of changes to compare pages by. before: that of the index before the search.

        The first page notes how many there were at least, later ones look how many there may be: a change that one
        page saw and another did not is never overlooked.
        """
        page = self.plan.page
        return before if page is None or page.since is None else await self.collection.sequence()

    async def _filter(self) -> Filtered | None:
        """Return the pictures that the filter lets through; None without a filter."""
        filter = self.plan.filter
        if filter is None:
            return None
        return await self.stages.required("filter", lambda _: self.collection.fields.select(filter))

    def _page(self, ranking: Ranking) -> tuple[Ranking, bool]:
        """Return the hits of the page, and whether others follow."""
        page = self.plan.page
        if page is None:
            return ranking, False
        end = page.offset + page.size
        return ranking.take(slice(page.offset, end)), end < len(ranking.keys)

    async def _resolve(self) -> ResolvedQuery:
        query = self.plan.query
        if isinstance(query, VectorQuery):
            return ResolvedQuery(vector=query.vector)
        if isinstance(query, IdQuery):
            stored = await self.collection.get(query.id)
            record = stored.record
            vector, query_vector = (x.astype(np.float32) for x in (record.descriptor, record.query_vector))
            local = await self.collection.local_features(stored.key) if self.plan.needs_deep else None
            found = await self.collection.keypoints(stored.key) if self.plan.needs_keypoints else None
            return ResolvedQuery(
                vector=vector,
                query_vector=query_vector,
                key=stored.key,
                local_features=local,
                keypoints=None if found is None else QueryKeypoints.of_indexed(found),
                patches=await self.collection.patches(stored.key) if self.plan.needs_patches else None,
            )
        picture, keypoints = await self._describe(query)
        return ResolvedQuery(
            vector=picture.descriptor,
            query_vector=picture.query_vector,
            picture=picture,
            local_features=picture.local_features,
            keypoints=keypoints,
            patches=picture.patches,
        )

    async def _describe(self, query: PictureQuery) -> tuple[DescribedPicture, QueryKeypoints | None]:
        """Describe the query, and find its keypoints meanwhile."""
        explain = self.plan.explain
        outputs = (
            *(FOR_EXPLAIN if explain else FOR_SEARCH),
            *(FOR_LOCAL if self.plan.needs_deep else ()),
            *(PATCH_OUTPUTS if self.plan.needs_patches else ()),
        )
        outputs = tuple(dict.fromkeys(outputs))
        prepared = await self.describer.decode(
            query.data, self.profile, self.stages, region=query.region, thumbnail=explain
        )
        beside = asyncio.create_task(self._keypoints(prepared))
        try:
            return await self.describer.infer(prepared, self.stages, outputs=outputs), await beside
        finally:
            beside.cancel()

    async def _keypoints(self, prepared: Prepared) -> QueryKeypoints | None:
        extractor, plan = self.extractor, self.plan
        if extractor is None or not plan.needs_keypoints:
            return None
        # A search by their words alone has no answer without them.
        needed = plan.first == WORDS and plan.sources.words == KEYPOINTS
        run = self.stages.required if needed else self.stages.optional
        return await run("keypoints", lambda _: extractor.of_query(prepared.pixels))

    async def _first_searches(self, query: ResolvedQuery) -> tuple[Ranking, Ranking | None]:
        """Return the first ranking, and the one by words if candidates come from both.

        If both are asked for and one fails, the other remains, and the answer says so. The global one may fail only if
        its index is away.
        """
        depth = self.plan.depth
        wanted = depth + (query.key is not None)

        def cut(ranking: Ranking) -> Ranking:
            return ranking.without(query.key).take(slice(depth))

        if self.plan.first == WORDS:
            return cut(await self.stages.required("search", lambda _: self._by_words(query, wanted))), None
        work = self.stages.required("search", lambda _: self._by_vector(query, wanted))
        if self.plan.first == GLOBAL:
            return cut(await work), None
        beside = asyncio.create_task(self.stages.optional("words", lambda _: self._by_words(query, wanted)))
        try:
            ranking, by_words = await work, await beside
        except IndexUnavailable as error:
            by_words = await beside
            if by_words is None:
                raise
            self.stages.degrade("search", f"{error.reason}: {error}")
            # Twice: a second search merges its hits with those by words. Merged with itself a ranking keeps its order.
            return cut(by_words), cut(by_words)
        finally:
            beside.cancel()
        return cut(ranking), None if by_words is None else cut(by_words)

    async def _by_vector(self, query: ResolvedQuery, wanted: int) -> Ranking:
        hits = await nearest(self.collection, self.stages, query.vector, wanted, query)
        return first_ranking(hits.keys, hits.scores)

    async def _by_words(self, query: ResolvedQuery, wanted: int) -> Ranking:
        words, query_words = await words_of(self.collection, query)
        hits = await words.search(query_words, wanted, query.selection)
        return words_ranking(hits.keys, hits.scores)

    async def _rerank(self, how: RerankingPlan, query: ResolvedQuery, before: Ranking) -> Ranking:
        """Re-rank the first hits; on failure return the ranking unchanged."""

        async def run(left: Deadline) -> Ranking:
            count, ranking = await shortlisted(self.collection, how, query, before)
            if not count:
                return before
            if how.method == SPATIAL:
                return await self._verify(query, ranking, count)
            return await self._coattend(query, ranking, count, how.weight, left)

        after = await self.stages.optional("rerank", run)
        if after is None:
            return before
        observe_kept(self.metrics, "rerank", before, after, wanted=self.plan.top_k)
        return after

    async def _coattend(
        self, query: ResolvedQuery, before: Ranking, count: int, weight: float, left: Deadline
    ) -> Ranking:
        """Sort the first `count` by co-attention. Parsing rejects raw descriptors, which have no vector for it."""
        if query.query_vector is None:
            return before
        clusters, counts = await self.collection.clusters(before.keys[:count])
        most = self.profile.sizes.candidates
        async with self.lane.turn(left):
            found = await coattend(self.triton, query.query_vector, clusters, counts, left, most=most)
        return sorted_by_coattention(before, found, weight)

    async def _verify(self, query: ResolvedQuery, before: Ranking, count: int) -> Ranking:
        """Sort the first `count` by spatial verification; by keypoints, near is near what LAttQE expanded."""
        if self.plan.sources.verification == KEYPOINTS:
            evidence = await self.collection.keypoint_verifier.evidence(
                query.needed_keypoints(), query.patches, before.keys[:count]
            )
            ranking, cosines = await self._with_cosines(query, before, count), None
            if query.expanded is not None:
                cosines = await self._second_search.cosines(query.expanded, ranking, count)
            return sorted_by_evidence(ranking, evidence, count, cosines=cosines)
        features = located(query.needed_local_features())
        return sorted_by_inliers(before, await self.collection.verifier.inliers(features, before.keys[:count]))

    async def _with_cosines(self, query: ResolvedQuery, before: Ranking, count: int) -> Ranking:
        """Compute the global scores that the first `count` hits lack, as those that only words found."""
        missing = np.flatnonzero(np.isnan(before.global_[:count]))
        if not len(missing):
            return before
        filled = before.global_.copy()
        filled[missing] = await self.collection.cosines(query.vector, before.keys[missing])
        return replace(before, global_=filled)

    async def _group(self, ranking: Ranking) -> Grouped:
        """Return the first `top_k` hits, or groups of them; on failure hits."""
        top_k, found = self.plan.top_k, None
        if self.plan.compared:
            first = ranking.take(slice(self.plan.compared))
            name = self.plan.group_field
            work = grouped if name is None else partial(grouped_by, name)
            found = await self.stages.optional("group", lambda _: work(first, top_k, self.collection))
        return found or Grouped(ranking=ranking.take(slice(top_k)))

    async def _others(self, ranking: Ranking, others: Mapping[int, NDArray[np.int64]]) -> list[list[str]]:
        """Return the ids of the pictures that each hit stands for, without pictures deleted since the search."""
        groups = [others.get(key, _NO_KEYS).tolist() for key in ranking.keys.tolist()]
        ids = await self._ids([key for group in groups for key in group])
        return [[ids[key] for key in group if key in ids] for group in groups]

    async def _vias(self, ranking: Ranking) -> list[str]:
        """Return the id of the picture by which each hit was recognised; empty without, or if it was deleted since."""
        vias = [None if one is None else one.named_via for one in ranking.evidence]
        keys = [-1 if via is None else via.key for via in vias]
        ids = await self._ids(sorted({key for key in keys if key >= 0}))
        return [ids.get(key, "") for key in keys]

    async def _ids(self, keys: Sequence[int]) -> dict[int, str]:
        """Return the ids of pictures by key, without deleted ones."""
        if not keys:
            return {}
        stored = await self.collection.pictures(np.array(keys, np.int64), thumbnails=False, vectors=False)
        return {key: one.record.id for key, one in zip(keys, stored, strict=True) if one is not None}

    async def _read_records(self, ranking: Ranking, query: ResolvedQuery) -> tuple[Ranking, list[Record]]:
        """Read the hits' records. Pictures deleted since the search are dropped: the store decides."""
        with self.stages.time("store"):
            # Vectors are needed only to explain, and for global scores that the first search did not compute.
            vectors = self.plan.explain or bool(np.isnan(ranking.global_).any())
            stored = await self.collection.pictures(ranking.keys, thumbnails=self.plan.explain, vectors=vectors)
        there = np.array([place for place, found in enumerate(stored) if found is not None], np.int64)
        records = [found.record for found in stored if found is not None]
        return _fill_global_scores(ranking.take(there), query, records), records

    def _models(self, ranking: Ranking) -> tuple[str, ...]:
        """Return the names of the graphs that affected an answer."""
        described = isinstance(self.plan.query, PictureQuery)
        return (
            *(("backbone",) if described else ()),
            *(("detector",) if described and self.plan.explain else ()),
            *(("lattqe",) if self._by_lattqe(ranking) else ()),
            *(("cluster", "coattention") if _ran(ranking.coattention) else ()),
        )

    def _untrained(self, ranking: Ranking) -> tuple[str, ...]:
        """Return the untrained parts that affected an answer.

        LAttQE, the reduction of co-attention and the projection of local features affect only answers in which they
        ran; attention and detectors only the boxes and maps of an explanation. All other parts affect every vector.
        """
        plan = self.plan
        ran = {"lattqe": self._by_lattqe(ranking), "reduction": _ran(ranking.coattention)}
        ran["locals"] = plan.needs_deep and (_ran(ranking.inliers) or _ran(ranking.words))
        ran |= dict.fromkeys(("attention", "detector"), plan.explain)
        return tuple(part for part in self.profile.untrained if ran.get(part, True))

    def _by_lattqe(self, ranking: Ranking) -> bool:
        """Return whether LAttQE expanded the query of an answer, alone or beside verified hits."""
        how = self.plan.expand
        beside = how is not None and how.nearest > 0 and "expand" not in self.stages.degradations
        return how is not None and (how.method == LATTQE or beside) and _ran(ranking.expanded)


def _fill_global_scores(ranking: Ranking, query: ResolvedQuery, records: list[Record]) -> Ranking:
    """Compute the global scores of hits that the first search did not score."""
    missing = np.flatnonzero(np.isnan(ranking.global_))
    if not len(missing):
        return ranking
    vectors = np.stack([records[place].descriptor for place in missing]).astype(np.float32)
    filled = ranking.global_.copy()
    filled[missing] = vectors @ query.vector
    return replace(ranking, global_=filled)


def _ran(scores: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(scores).any())
