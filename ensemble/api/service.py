"""The gRPC services. They convert requests and answers; the work is done in other modules."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.rpc import code_pb2

from landseer.ensemble.api.messages import (
    add_page,
    add_stages,
    describe_response,
    get_response,
    list_response,
    model_versions,
    search_response,
    timestamp,
)
from landseer.ensemble.api.metadata_mask import MetadataMask, metadata_mask
from landseer.ensemble.api.request import page_query, region_of, search_plan
from landseer.ensemble.api.status import clip
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.filters.parser import parse
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.readiness import Readiness
from landseer.ensemble.inference.triton import GRAPHS, Served, Triton
from landseer.ensemble.ingest.indexing import MOST_LISTED, Indexer, StreamTally
from landseer.ensemble.keypoints.extractor import Extractor
from landseer.ensemble.search.admission import Lane
from landseer.ensemble.search.describe import FOR_DESCRIBE, Describer
from landseer.ensemble.search.gate import Gate
from landseer.ensemble.search.plan import PictureQuery, Query, SearchPlan
from landseer.ensemble.search.search import SearchResult, SearchRun
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.store.record import MAX_ID_BYTES, check_id
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.tracing import Tracing
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2, search_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, kw_only=True)
class Gates:
    """The gate of each kind of request that takes work."""

    pictures: Gate
    """Searches by picture, and Describe."""
    lookups: Gate
    """Searches by id and by descriptor, which need no picture described: they do not queue behind those that do."""
    uploads: Gate
    """Upsert. UpsertMany is slowed down instead, by not being read."""

    def of(self, query: Query) -> Gate:
        """Return the gate of a search."""
        return self.pictures if isinstance(query, PictureQuery) else self.lookups


@dataclass(frozen=True, kw_only=True)
class ServiceParts:
    """The components that both services share."""

    config: ServerConfig
    metrics: Metrics
    tracing: Tracing
    readiness: Readiness
    gates: Gates
    triton: Triton
    lane: Lane
    """Of the calls of Triton that follow describing."""
    describer: Describer
    extractor: Extractor | None
    """None if the server has no keypoints."""
    indexer: Indexer

    def stages(self, context: Context) -> Stages:
        """Return the stages of an answer, bounded by the caller's deadline."""
        deadline = Deadline.after(context.time_remaining())
        return Stages(self.metrics, deadline, reserve_s=self.config.answer_reserve_s, tracing=self.tracing)


class SearchService(search_pb2_grpc.SearchServiceServicer):
    """Search and Describe."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:  # noqa: N802
        """Rank the indexed pictures against a query."""
        parts, stages = self._parts, self._parts.stages(context)
        with stages.time("total"):
            collection = parts.readiness.collection()
            plan = search_plan(
                request,
                parts.readiness.profile(),
                max_top_k=parts.config.max_top_k,
                sources=collection.sources,
            )
            mask = metadata_mask(request.metadata_mask)
            with parts.gates.of(plan.query).admitted(stages.deadline):
                found, response = await self._search(plan, collection, stages, mask)
            if plan.page is not None:
                add_page(response, request, plan.page, found)
        add_stages(response, stages)
        return response

    async def Describe(  # noqa: N802
        self, request: search_pb2.DescribeRequest, context: Context
    ) -> search_pb2.DescribeResponse:
        """Turn a picture into vectors, boxes and attention."""
        parts, stages = self._parts, self._parts.stages(context)
        with stages.time("total"):
            served = parts.readiness.models()
            region = region_of(request)
            with parts.gates.pictures.admitted(stages.deadline):
                described = await parts.describer.describe(
                    request.image, served.profile, stages, outputs=FOR_DESCRIBE, region=region
                )
                response = describe_response(described, served)
        add_stages(response, stages)
        return response

    async def _search(
        self, plan: SearchPlan, collection: Collection, stages: Stages, mask: MetadataMask
    ) -> tuple[SearchResult, search_pb2.SearchResponse]:
        readiness = self._parts.readiness
        needs_models = isinstance(plan.query, PictureQuery)
        served: Served | None = readiness.models() if needs_models else readiness.models_if_there()
        profile = readiness.profile()
        search = SearchRun(
            plan=plan,
            collection=collection,
            profile=profile,
            stages=stages,
            triton=self._parts.triton,
            lane=self._parts.lane,
            describer=self._parts.describer,
            extractor=self._parts.extractor,
            metrics=self._parts.metrics,
        )
        found = await search.run()
        # A thousand hits with heat maps would block the event loop.
        explain = plan.explain
        return found, await asyncio.to_thread(search_response, found, served, profile, explain=explain, mask=mask)


class IndexService(index_pb2_grpc.IndexServiceServicer):
    """Upsert, UpsertMany, Delete, Get, List and Stats."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts

    async def Upsert(self, request: index_pb2.UpsertRequest, context: Context) -> index_pb2.UpsertResponse:  # noqa: N802
        """Index a picture."""
        stages = self._parts.stages(context)
        with stages.time("total"), self._parts.gates.uploads.admitted(stages.deadline):
            written = await self._parts.indexer.upsert(request.picture, stages)
        return index_pb2.UpsertResponse(replaced=written.replaced_key is not None, sequence=written.key)

    async def UpsertMany(  # noqa: N802
        self, request_iterator: AsyncIterator[index_pb2.UpsertManyRequest], context: Context
    ) -> index_pb2.UpsertManyResponse:
        """Index a stream of pictures."""
        tally = await self._parts.indexer.upsert_many(request_iterator, lambda: self._parts.stages(context))
        return _upsert_many_response(tally)

    async def Delete(self, request: index_pb2.DeleteRequest, context: Context) -> index_pb2.DeleteResponse:  # noqa: N802
        """Delete a picture."""
        check_id(request.id)
        written = await self._parts.readiness.writer().delete(request.id)
        return index_pb2.DeleteResponse(sequence=written.key)

    async def Get(self, request: index_pb2.GetRequest, context: Context) -> index_pb2.GetResponse:  # noqa: N802
        """Return the stored record of a picture."""
        check_id(request.id)
        mask = metadata_mask(request.metadata_mask)
        stored = await self._parts.readiness.collection().get(request.id)
        return get_response(stored, include_vectors=request.include_vectors, mask=mask)

    async def List(self, request: index_pb2.ListRequest, context: Context) -> index_pb2.ListResponse:  # noqa: N802
        """List pictures by their ids."""
        query, filter, mask = page_query(request), parse(request.filter), metadata_mask(request.metadata_mask)
        page, matched = await self._parts.readiness.collection().page(query, filter)
        return list_response(page, matched, mask=mask)

    async def Stats(self, request: index_pb2.StatsRequest, context: Context) -> index_pb2.StatsResponse:  # noqa: N802
        """Return sizes, models and limits."""
        parts, collection = self._parts, self._parts.readiness.collection()
        stats, profile, config = await collection.stats(), parts.readiness.profile(), parts.config
        searched = dataclasses.asdict(collection.searched(stats))
        return index_pb2.StatsResponse(
            pictures=stats.pictures,
            sequence=stats.sequence,
            store_bytes=stats.used_bytes,
            store_limit_bytes=stats.limit_bytes,
            index_engine=config.engine,
            descriptor_size=profile.sizes.channels,
            long_side=profile.long_side,
            backbone=profile.backbone,
            model_versions=model_versions(parts.readiness.models_if_there(), GRAPHS),
            untrained=profile.untrained,
            last_change=timestamp(stats.last_change),
            max_top_k=config.max_top_k,
            max_image_bytes=config.limits.max_bytes,
            max_image_pixels=config.limits.max_pixels,
            searched_vectors=index_pb2.SearchedVectors(**searched),
            local_features=index_pb2.LocalFeaturesStats(
                kept=config.deep,
                pictures=stats.locals,
                bytes=stats.locals_bytes,
                regions=config.regions,
            ),
            visual_words=_visual_words(collection),
            keypoints=index_pb2.KeypointsStats(
                kept=config.keypoints, pictures=stats.keypoints, bytes=stats.keypoints_bytes
            ),
            indexed_fields=[
                index_pb2.IndexedFieldStats(**dataclasses.asdict(field)) for field in await collection.fields.stats()
            ],
        )


def _visual_words(collection: Collection) -> index_pb2.VisualWordsStats:
    words = collection.words
    return index_pb2.VisualWordsStats(**dataclasses.asdict(words.stats) if words else {})


def _upsert_many_response(tally: StreamTally) -> index_pb2.UpsertManyResponse:
    response = index_pb2.UpsertManyResponse(indexed=tally.indexed, replaced=tally.replaced)
    for failure in sorted(tally.failures, key=lambda failure: failure.position):
        response.failures.add(
            id=failure.id.encode()[:MAX_ID_BYTES].decode(errors="ignore"),
            position=failure.position,
            code=_code(failure.error),
            message=clip(str(failure.error)),
        )
    if tally.unlisted:
        response.failures[-1].message += (
            f"; and {tally.unlisted:,} more pictures of this stream failed and are not listed: an answer lists "
            f"{MOST_LISTED:,}; send streams of at most that many pictures"
        )
    return response


def _code(error: LandseerError) -> int:
    return int(code_pb2.Code.Value(error.code))
