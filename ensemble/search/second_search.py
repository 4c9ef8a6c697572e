"""The second search: with the query expanded by its neighbours, or by the hits that keypoints verified."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.search.admission import Lane
from landseer.ensemble.search.expansion.dqe import NEGATIVES
from landseer.ensemble.search.expansion.methods import (
    DQE,
    LATTQE,
    RECOGNISED,
    WITNESSES,
    by_verified_hits,
    classical,
)
from landseer.ensemble.search.expansion.served_lattqe import Expanded, expand
from landseer.ensemble.search.nearest import nearest
from landseer.ensemble.search.plan import ExpansionPlan, RerankingPlan, SearchPlan
from landseer.ensemble.search.quality import observe_kept
from landseer.ensemble.search.ranking import (
    Ranking,
    expanded_ranking,
    fused,
    recognised,
    sorted_by_evidence,
    unverified_keys,
    verified,
    with_relevance,
    with_verified,
)
from landseer.ensemble.search.resolved_query import ResolvedQuery
from landseer.ensemble.search.shortlist import shortlisted
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.verify.evidence import Evidence, Via

Vector = NDArray[np.float32]
"""[D]."""


class Firsts(NamedTuple):
    """The hits of the first search."""

    by_vector: Ranking
    by_words: Ranking | None
    """To merge with those of the second search; None if candidates come from the descriptor alone."""


@dataclass(frozen=True, kw_only=True)
class SecondSearch:
    """Searches again. On failure the first ranking stays, and `stages` has the reason."""

    plan: SearchPlan
    collection: Collection
    profile: Profile
    stages: Stages
    triton: Triton
    lane: Lane
    metrics: Metrics

    async def by_neighbours(
        self, how: ExpansionPlan, query: ResolvedQuery, before: Ranking
    ) -> tuple[Ranking, Vector | None]:
        """Search again with an expanded query; return it, too. On failure return the first ranking and None."""

        keys, vector = before.keys[: how.neighbours], query.vector

        async def run(left: Deadline) -> Expanded:
            if how.method == LATTQE:
                return await self._learned(vector, keys, left)
            neighbours = await self.collection.descriptors(keys)
            if not len(neighbours):
                return Expanded(vector)
            lowest = await self._lowest(query) if how.method == DQE else neighbours[:0]
            combine = partial(classical, how.method, vector, neighbours, alpha=how.alpha, lowest=lowest)
            return Expanded(await asyncio.to_thread(combine))

        expanded, after = await self.stages.optional("expand", run), None
        if expanded is not None:
            known = with_relevance(before, keys, expanded.relevance)
            after = await self.stages.optional("research", lambda _: self._found(expanded.vector, query, known))
        if expanded is None or after is None:
            return before, None
        observe_kept(self.metrics, "expand", before, after, wanted=self.plan.top_k)
        return after, expanded.vector

    async def _learned(self, vector: Vector, keys: NDArray[np.int64], left: Deadline) -> Expanded:
        """Return a query expanded by LAttQE, and the relevance of its neighbours; keys: [k], nearest first."""
        neighbours = await self.collection.descriptors(keys)
        if not len(neighbours):
            return Expanded(vector)
        async with self.lane.turn(left):
            found = await expand(self.triton, vector, neighbours, left, most=self.profile.sizes.neighbours)
        # If a picture was deleted meanwhile, whose relevance is whose is not known.
        return found if len(neighbours) == len(keys) else Expanded(found.vector)

    async def cosines(self, vector: Vector, ranking: Ranking, count: int) -> NDArray[np.float32]:
        """Return the cosines of the first `count` hits with an expanded query, [count]."""
        found = ranking.expanded[:count].copy()
        missing = np.flatnonzero(np.isnan(found))
        if len(missing):
            found[missing] = await self.collection.cosines(vector, ranking.keys[missing])
        return found

    async def _found(self, vector: Vector, query: ResolvedQuery, before: Ranking) -> Ranking:
        """Search by an expanded query, float32 [D]."""
        wanted = self.plan.depth + (query.key is not None)
        hits = await nearest(self.collection, self.stages, vector, wanted, query)
        return expanded_ranking(hits.keys, hits.scores, before).without(query.key)

    async def by_verified(
        self, how: ExpansionPlan, rerank: RerankingPlan, query: ResolvedQuery, before: Ranking, firsts: Firsts
    ) -> Ranking:
        """Search again with the query expanded by its verified hits, verify what is new, and recognise others by them.

        If the plan says so, LAttQE expands the query before; if it fails, verified hits are added to the query itself.
        On failure, and where no hit was verified, return the ranking unchanged: LAttQE alone lost first hits of things
        with a single photograph.
        """
        sure = verified(before, how.neighbours)
        if not sure:
            return before
        keys = firsts.by_vector.keys[: how.nearest]
        expanded = await self.stages.optional("expand", lambda left: self._with_verified(query, sure, keys, left))
        if expanded is None:
            return before
        known = with_relevance(before, keys, expanded.relevance)
        again = await self.stages.optional(
            "research", lambda _: self._verified_again(rerank, query, expanded.vector, known, firsts.by_words)
        )
        if again is None:
            return before
        count, after = again
        if len(keys := unverified_keys(after, RECOGNISED)):
            vias = await self.stages.optional("via", lambda _: self._vias(sure, keys))
            after = after if vias is None else recognised(after, vias, count)
        observe_kept(self.metrics, "expand", before, after, wanted=self.plan.top_k)
        return after

    async def _with_verified(
        self, query: ResolvedQuery, sure: Mapping[int, Evidence], keys: NDArray[np.int64], left: Deadline
    ) -> Expanded:
        """Return the query expanded by LAttQE, where keys [k] names neighbours, and then by its verified hits."""
        learned = None
        if len(keys):
            learned = await self.stages.part("expand", self._learned(query.vector, keys, left))
        found = await self.collection.descriptors(np.array(list(sure), np.int64))
        if learned is None:
            return Expanded(await asyncio.to_thread(by_verified_hits, query.vector, found))
        vector = await asyncio.to_thread(by_verified_hits, query.vector, found, learned=learned.vector)
        return learned._replace(vector=vector)

    async def _verified_again(
        self,
        how: RerankingPlan,
        query: ResolvedQuery,
        vector: Vector,
        before: Ranking,
        by_words: Ranking | None,
    ) -> tuple[int, Ranking]:
        """Search by the expanded query, and sort the first hits by the evidence of `before` and of hits that had none.

        Returns how many these are, and the ranking. What was verified before is among them. vector: the expanded query,
        by which hits are near.
        """
        again = await self._found(vector, query, before)
        merged = again if by_words is None else fused(again, by_words)
        count, ranking = await shortlisted(self.collection, how, query, with_verified(merged, before))
        known = before.evidence_by_key()
        new = ranking.keys[:count][~np.isin(ranking.keys[:count], list(known))]
        if len(new):
            # The error says that none of these has keypoints; others have.
            with suppress(LocalFeaturesMissing):
                known |= await self.collection.keypoint_verifier.evidence(query.needed_keypoints(), query.patches, new)
        expanded = ranking.expanded.copy()
        expanded[:count] = await self.cosines(vector, ranking, count)
        ranking = replace(ranking, expanded=expanded)
        return count, sorted_by_evidence(ranking, known, count, cosines=expanded[:count])

    async def _vias(self, sure: Mapping[int, Evidence], keys: NDArray[np.int64]) -> Mapping[int, Via]:
        """Verify pictures [C] against the first verified hits."""
        return await self.collection.keypoint_verifier.vias(dict(islice(sure.items(), WITNESSES)), keys)

    async def _lowest(self, query: ResolvedQuery) -> Vector:
        """Return the lowest-ranked descriptors: the nearest to the negated query."""
        hits = await nearest(self.collection, self.stages, -query.vector, NEGATIVES, query)
        return await self.collection.descriptors(hits.keys[hits.keys != query.key])
