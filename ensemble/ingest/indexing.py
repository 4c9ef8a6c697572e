"""Index pictures: describe them, then hand them to the writer, one at a time or as a stream."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np

from landseer.ensemble.errors import InvalidInput, LandseerError
from landseer.ensemble.index.readiness import Readiness
from landseer.ensemble.index.writer import GROUP
from landseer.ensemble.inference.contracts import PATCH_OUTPUTS
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.ingest.regions import regions_of
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.extractor import Extractor
from landseer.ensemble.pictures.heatmap import FeatureMap
from landseer.ensemble.pictures.pictures import Prepared
from landseer.ensemble.search.describe import FOR_INDEX, DescribedPicture, Describer
from landseer.ensemble.search.held_bytes import HeldBytes
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.store.local_features import LOCAL_OUTPUTS, LocalFeatures, joined
from landseer.ensemble.store.record import Record, StoreChange, check_id, check_metadata
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.request_id import unexpected_error
from landseer.v1 import index_pb2

log = logging.getLogger(__name__)
MOST_LISTED = 1000
"""Failures that an answer to a stream lists: at most 3 MB, less than the 4 MiB that any gRPC client accepts."""


@dataclass(frozen=True, kw_only=True)
class StreamFailure:
    """A picture of a stream that was not indexed."""

    id: str
    position: int
    error: LandseerError


@dataclass(frozen=True, kw_only=True, eq=False)
class _InFlight:
    id: str
    position: int
    work: asyncio.Task[Record]


@dataclass(kw_only=True)
class StreamTally:
    """The outcome of a stream."""

    indexed: int = 0
    replaced: int = 0
    failures: list[StreamFailure] = field(default_factory=list)
    """The first `MOST_LISTED`."""
    unlisted: int = 0
    """Number of further failures."""

    def note(self, one: _InFlight, error: BaseException) -> None:
        """Record a picture that was not indexed. Unexpected errors are logged and do not end the stream."""
        if not isinstance(error, LandseerError):
            log.error("indexing picture %r at position %d of a stream failed", one.id, one.position, exc_info=error)
            error = LandseerError(unexpected_error())
        if len(self.failures) < MOST_LISTED:
            self.failures.append(StreamFailure(id=one.id, position=one.position, error=error))
        else:
            self.unlisted += 1


class Indexer:
    """Describes pictures for the index."""

    def __init__(
        self,
        readiness: Readiness,
        describer: Describer,
        metrics: Metrics,
        *,
        extractor: Extractor | None,
        thumbnails: bool,
        local_features: bool,
        patches: bool,
        regions: int,
        in_flight: int,
        held: HeldBytes,
    ) -> None:
        """in_flight: pictures of a stream processed at a time; held: bytes of those of all streams and calls."""
        self._readiness = readiness
        self._metrics = metrics
        self._describer = describer
        self._extractor = extractor
        self._thumbnails = thumbnails
        self._local_features, self._patches = local_features, patches
        self._regions = regions
        self._most = in_flight
        self._held = held

    async def upsert(self, picture: index_pb2.Picture, stages: Stages) -> StoreChange:
        """Index one picture; on return it is on disk and can be found."""
        record = await self._record(picture, stages)
        return (await self._readiness.writer().put([record]))[0]

    async def upsert_many(
        self, pictures: AsyncIterator[index_pb2.UpsertManyRequest], new_stages: Callable[[], Stages]
    ) -> StreamTally:
        """Index a stream. Pictures are described concurrently and written in the order of the stream.

        At most `in_flight` pictures are processed at a time, fewer while too many bytes are in flight; beyond that the
        stream is not read, and gRPC's flow control slows the sender down.
        """
        tally, flying, position = StreamTally(), deque[_InFlight](), 0
        try:
            async for request in pictures:
                if len(flying) >= self._most:
                    await self._land(flying, tally)
                work = asyncio.create_task(self._record(request.picture, new_stages()))
                self._hold(len(request.picture.image), work)
                flying.append(_InFlight(id=request.picture.id, position=position, work=work))
                position += 1
                while flying and self._held.full:
                    await self._land(flying, tally)
                await self._held.room()
            while flying:
                await self._land(flying, tally)
        finally:
            for one in flying:
                one.work.cancel()
            await asyncio.gather(*(one.work for one in flying), return_exceptions=True)
        return tally

    def _hold(self, count: int, work: asyncio.Task[Record]) -> None:
        """Hold the bytes of a picture until it is described."""
        self._held.hold(count)
        work.add_done_callback(lambda _: self._held.release(count))

    async def _land(self, flying: deque[_InFlight], tally: StreamTally) -> None:
        """Wait for the first picture and write it together with the following ones that are also done."""
        await asyncio.wait([flying[0].work])
        landed: list[_InFlight] = []
        while flying and flying[0].work.done() and len(landed) < GROUP:
            landed.append(flying.popleft())
        described = []
        for one in landed:
            if error := one.work.exception():
                tally.note(one, error)
            else:
                described.append(one)
        try:
            written = await self._readiness.writer().put([one.work.result() for one in described])
        except Exception as error:
            for one in described:
                tally.note(one, error)
            return
        tally.indexed += len(written)
        tally.replaced += sum(one.replaced_key is not None for one in written)

    async def _record(self, picture: index_pb2.Picture, stages: Stages) -> Record:
        """Describe a picture. InvalidInput names fields of the request, such as `picture.image`."""
        try:
            return await self._described(picture, stages)
        except LandseerError:
            self._metrics.ingested.labels("refused").inc()
            raise

    async def _described(self, picture: index_pb2.Picture, stages: Stages) -> Record:
        collection, profile = self._readiness.collection(), self._readiness.models().profile
        metadata = dict(picture.metadata)
        try:
            check_id(picture.id)
            check_metadata(metadata)
            prepared = await self._describer.decode(picture.image, profile, stages, thumbnail=self._thumbnails)
        except InvalidInput as error:
            raise InvalidInput(f"picture.{error.field}", error.description, kind=error.kind) from error
        keypoints = asyncio.create_task(self._keypoints(prepared, stages))
        try:
            outputs = outputs_of(profile, deep=self._local_features, patches=self._patches)
            described = await self._describer.infer(prepared, stages, outputs=outputs)
            features, words = await self._stored_features(picture.image, described, profile, stages), None
            if collection.deep_words is not None and features is not None:
                words = await collection.deep_words.of_picture(features)
            record = record_of(picture.id, metadata, described, profile.version)
            return dataclasses.replace(
                record,
                locals=features,
                words=words,
                keypoints=await keypoints,
                patches=described.patches,
            )
        finally:
            keypoints.cancel()

    async def _keypoints(self, prepared: Prepared, stages: Stages) -> CompactKeypoints | None:
        """Return the keypoints of a picture, found while Triton describes it; None if they are not stored."""
        extractor = self._extractor
        if extractor is None:
            return None
        return await stages.required("keypoints", lambda _: extractor.of_picture(prepared.pixels))

    async def _stored_features(
        self, image: bytes, described: DescribedPicture, profile: Profile, stages: Stages
    ) -> LocalFeatures | None:
        """Return the local features of the whole picture, then of its regions; None if they are not stored."""
        features, prepared = described.local_features, described.prepared
        if features is None or not self._regions:
            return features
        size = {"width": prepared.width, "height": prepared.height}
        regions = regions_of(described.boxes, most=self._regions, **size)
        if not regions:
            return features
        return joined([features, *await self._describer.regions(image, profile, stages, regions)])


def outputs_of(profile: Profile, *, deep: bool, patches: bool) -> tuple[str, ...]:
    """Return the outputs of `describe_full` that a record is made of.

    deep, patches: whether deep local features are stored, and patches if the models have them.
    """
    local = LOCAL_OUTPUTS if deep else ()
    return tuple(dict.fromkeys((*FOR_INDEX, *local, *(PATCH_OUTPUTS if patches and profile.patches_sha256 else ()))))


def record_of(id: str, metadata: dict[str, str], described: DescribedPicture, version: str) -> Record:
    """Return the record of a described picture, without its local features."""
    prepared, tensors = described.prepared, described.tensors
    height, width = prepared.pixels.shape[:2]
    features = FeatureMap.pack(
        tensors["local_positions"], tensors["local_scales"], tensors["assignments"], width=width, height=height
    )
    return Record(
        id=id,
        metadata=metadata,
        width=prepared.width,
        height=prepared.height,
        descriptor=described.descriptor.astype(np.float16),
        query_vector=described.query_vector.astype(np.float16),
        clusters=described.clusters,
        boxes=described.boxes,
        feature_map=features.packed,
        model_version=version,
        indexed_at=time.time(),
        thumbnail=prepared.thumbnail,
    )
