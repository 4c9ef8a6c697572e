"""The second search: with the query expanded by its neighbours, or by the hits that keypoints verified."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.search.admission import Lane
from landseer.ensemble.search.expansion.dqe import NEGATIVES
from landseer.ensemble.search.expansion.methods import DQE, LATTQE, classical
from landseer.ensemble.search.expansion.served_lattqe import expand
from landseer.ensemble.search.expansion.weights import combined
from landseer.ensemble.search.plan import ExpansionPlan, RerankingPlan, SearchPlan
from landseer.ensemble.search.quality import observe_kept
from landseer.ensemble.search.ranking import Ranking, expanded_ranking, fused, sorted_by_evidence, verified_keys
from landseer.ensemble.search.resolved_query import ResolvedQuery
from landseer.ensemble.search.shortlist import shortlisted
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.telemetry.metrics import Metrics


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

    async def by_neighbours(self, how: ExpansionPlan, query: ResolvedQuery, before: Ranking) -> Ranking:
        """Search again with an expanded query; on failure return the first ranking."""

        async def run(left: Deadline) -> NDArray[np.float32]:
            neighbours = await self.collection.descriptors(before.keys[: how.neighbours])
            if not len(neighbours):
                return query.vector
            if how.method == LATTQE:
                async with self.lane.turn(left):
                    return await expand(self.triton, query.vector, neighbours, left, most=self.profile.sizes.neighbours)
            lowest = await self._lowest(query) if how.method == DQE else neighbours[:0]
            vector = query.vector
            return await asyncio.to_thread(classical, how.method, vector, neighbours, alpha=how.alpha, lowest=lowest)

        vector = await self.stages.optional("expand", run)
        after = None if vector is None else await self._search_by(vector, query, before)
        if after is None:
            return before
        observe_kept(self.metrics, "expand", before, after, wanted=self.plan.top_k)
        return after

    async def _search_by(self, vector: NDArray[np.float32], query: ResolvedQuery, before: Ranking) -> Ranking | None:
        """Search by an expanded query, float32 [D]; None on failure."""
        wanted = self.plan.depth + (query.key is not None)

        async def again(_: Deadline) -> Ranking:
            hits = await self.collection.search(vector, wanted, query.selection)
            return expanded_ranking(hits.keys, hits.scores, before).without(query.key)

        return await self.stages.optional("research", again)

    async def by_verified(
        self, how: ExpansionPlan, rerank: RerankingPlan, query: ResolvedQuery, before: Ranking, by_words: Ranking | None
    ) -> Ranking:
        """Search again with the query expanded by its verified hits, and verify what is new; on failure, and where no
        hit was verified, return the ranking unchanged."""
        neighbours = verified_keys(before, how.neighbours)
        if not len(neighbours):
            return before

        async def run(_: Deadline) -> NDArray[np.float32]:
            found = await self.collection.descriptors(neighbours)
            return await asyncio.to_thread(combined, query.vector, found, np.ones(len(found) + 1))

        vector = await self.stages.optional("expand", run)
        again = None if vector is None else await self._search_by(vector, query, before)
        if vector is None or again is None:
            return before
        merged = again if by_words is None else fused(again, by_words)
        after = await self.stages.optional("rerank", lambda _: self._verify_new(rerank, query, vector, before, merged))
        if after is None:
            return before
        observe_kept(self.metrics, "expand", before, after, wanted=self.plan.top_k)
        return after

    async def _verify_new(
        self,
        how: RerankingPlan,
        query: ResolvedQuery,
        vector: NDArray[np.float32],
        before: Ranking,
        merged: Ranking,
    ) -> Ranking:
        """Sort the first hits of `merged` by the evidence of `before`, and by that of hits which had none.

        vector: the expanded query, by which hits are near.
        """
        count, ranking = await shortlisted(self.collection, how, query, merged)
        known = {key: one for key, one in zip(before.keys.tolist(), before.evidence, strict=True) if one is not None}
        new = ranking.keys[:count][~np.isin(ranking.keys[:count], list(known))]
        if len(new):
            # The error says that none of these has keypoints; others have.
            with suppress(LocalFeaturesMissing):
                known |= await self.collection.keypoint_verifier.evidence(query.needed_keypoints(), query.patches, new)
        expanded = ranking.expanded.copy()
        missing = np.flatnonzero(np.isnan(expanded[:count]))
        if len(missing):
            expanded[missing] = await self.collection.cosines(vector, ranking.keys[missing])
        return sorted_by_evidence(replace(ranking, expanded=expanded), known, count, cosines=expanded[:count])

    async def _lowest(self, query: ResolvedQuery) -> NDArray[np.float32]:
        """Return the lowest-ranked descriptors: the nearest to the negated query."""
        hits = await self.collection.search(-query.vector, NEGATIVES, query.selection)
        return await self.collection.descriptors(hits.keys[hits.keys != query.key])
