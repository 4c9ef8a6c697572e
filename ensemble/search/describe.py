"""From encoded bytes to vectors, boxes and attention: decode here, then call one of Triton's ensembles once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import Limits
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import InvalidInput, Overloaded
from landseer.ensemble.inference.contracts import PATCH_OUTPUTS
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.keypoints.patches import Patches, patches_of
from landseer.ensemble.pictures.decoders import Decode, decode_here
from landseer.ensemble.pictures.pictures import Prepared, Region, prepare, prepare_regions
from landseer.ensemble.search.admission import Lane
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.store.local_features import LOCAL_OUTPUTS, LocalFeatures, of_tensors
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.workers import Workers

T = TypeVar("T")
VECTORS = ("descriptor", "query_vector")
BOXES = ("boxes", "box_scores", "box_count")
CLUSTERS = ("clusters", "cluster_count")
FEATURE_MAP = ("local_positions", "local_scales", "assignments")
PATIENCE_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Pauses between retries for indexing, when the queue is full; through gRPC's flow control the sender waits too."""
FOR_SEARCH = VECTORS
# The counts are not used. But Triton 2.51 fails an ensemble with "unexpected deadlock, at least one output is not set"
# unless an output of each of its last steps, here detector and cluster, is requested.
FOR_EXPLAIN = (*VECTORS, "attention", *BOXES, "cluster_count")
FOR_LOCAL = (*VECTORS, *LOCAL_OUTPUTS, "box_count", "cluster_count")
FOR_DESCRIBE = (*VECTORS, "attention", *BOXES, *CLUSTERS)
FOR_INDEX = (*VECTORS, *BOXES, *CLUSTERS, *FEATURE_MAP)
"""Sets of outputs to request; Triton sends no others."""


@dataclass(frozen=True, kw_only=True)
class DescribedPicture:
    """A picture and the outputs of the models for it."""

    prepared: Prepared
    tensors: dict[str, NDArray[Any]]
    """Outputs of `describe` or `describe_full` without their batch axis."""

    @property
    def descriptor(self) -> NDArray[np.float32]:
        """float32 [D], unit norm."""
        return self.tensors["descriptor"]

    @property
    def query_vector(self) -> NDArray[np.float32]:
        """float32 [P], unit norm."""
        return self.tensors["query_vector"]

    @property
    def clusters(self) -> NDArray[np.float16]:
        """float16 [k, P], without padding."""
        count: int = self.tensors["cluster_count"].item()
        return self.tensors["clusters"][:count]

    @property
    def local_features(self) -> LocalFeatures | None:
        """Local features of the described region, positions in `prepared.pixels`; None if not requested."""
        return of_tensors(self.tensors) if "local_descriptors" in self.tensors else None

    @property
    def patches(self) -> Patches | None:
        """The patches of the described region, positions in `prepared.pixels`; None if not requested."""
        if "patch_codes" not in self.tensors:
            return None
        height, width = self.prepared.pixels.shape[:2]
        return patches_of(self.tensors, frame=(width, height))

    @property
    def boxes(self) -> NDArray[np.float32]:
        """float32 [m, 5]: x, y, width, height in pixels of the whole picture, and the score; best first."""
        count: int = self.tensors["box_count"].item()
        corners, scores = self.tensors["boxes"][:count], self.tensors["box_scores"][:count]
        return whole_picture_boxes(corners, scores, self.prepared)


class Describer:
    """Decodes pictures on its own threads, then calls Triton."""

    def __init__(
        self,
        triton: Triton,
        lane: Lane,
        workers: Workers,
        metrics: Metrics,
        *,
        limits: Limits,
        decode: Decode = decode_here,
        patience_s: Sequence[float] = (),
    ) -> None:
        """decode: runs on the threads; patience_s: seconds to wait before each retry when the queue is full."""
        self._triton = triton
        self._lane = lane
        self._patience_s = patience_s
        self._workers = workers
        self._metrics = metrics
        self._limits = limits
        self._decode = decode

    async def describe(
        self,
        data: bytes,
        profile: Profile,
        stages: Stages,
        *,
        outputs: Sequence[str] = FOR_SEARCH,
        region: Region | None = None,
        thumbnail: bool = False,
    ) -> DescribedPicture:
        """Describe a picture, or a region of it. InvalidInput for `image` or `region`; errors of Triton.infer."""
        prepared = await self.decode(data, profile, stages, region=region, thumbnail=thumbnail)
        return await self.infer(prepared, stages, outputs=outputs)

    async def decode(
        self,
        data: bytes,
        profile: Profile,
        stages: Stages,
        *,
        region: Region | None = None,
        thumbnail: bool = False,
    ) -> Prepared:
        """Decode a picture, or a region of it, for the models. InvalidInput for `image` or `region`."""
        return await stages.required(
            "decode", lambda _: self._decoded(prepare, data, profile=profile, region=region, thumbnail=thumbnail)
        )

    async def infer(
        self, prepared: Prepared, stages: Stages, *, outputs: Sequence[str] = FOR_SEARCH
    ) -> DescribedPicture:
        """Describe a decoded picture. Errors of Triton.infer."""
        model = "describe" if set(outputs) <= {*VECTORS, *PATCH_OUTPUTS} else "describe_full"
        image = {"image": prepared.pixels[None]}
        tensors = await stages.required("describe", lambda left: self._infer(model, image, outputs, left))
        return DescribedPicture(prepared=prepared, tensors={name: tensor[0] for name, tensor in tensors.items()})

    async def regions(
        self, data: bytes, profile: Profile, stages: Stages, regions: Sequence[Region]
    ) -> list[LocalFeatures]:
        """Return the local features of regions of a picture, described concurrently. Errors as of `describe`."""
        return await stages.required("regions", lambda left: self._regions(data, profile, regions, left))

    async def _regions(
        self, data: bytes, profile: Profile, regions: Sequence[Region], left: Deadline
    ) -> list[LocalFeatures]:
        found = await self._decoded(prepare_regions, data, regions, profile=profile)
        tasks = [asyncio.create_task(self._region(prepared, left)) for prepared in found]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # If one fails, the others are useless.
            for task in tasks:
                task.cancel()

    async def _region(self, prepared: Prepared, left: Deadline) -> LocalFeatures:
        tensors = await self._infer("backbone", {"image": prepared.pixels[None]}, LOCAL_OUTPUTS, left)
        return of_tensors({name: tensor[0] for name, tensor in tensors.items()})

    async def _infer(
        self, model: str, image: dict[str, NDArray[np.uint8]], outputs: Sequence[str], deadline: Deadline
    ) -> dict[str, NDArray[Any]]:
        for pause in self._patience_s:
            try:
                return await self._once(model, image, outputs, deadline)
            except Overloaded:
                await asyncio.sleep(pause)
        return await self._once(model, image, outputs, deadline)

    async def _once(
        self, model: str, image: dict[str, NDArray[np.uint8]], outputs: Sequence[str], deadline: Deadline
    ) -> dict[str, NDArray[Any]]:
        async with self._lane.turn(deadline):
            return await self._triton.infer(model, image, outputs, deadline)

    async def _decoded(self, work: Callable[..., T], data: bytes, *rest: Any, **options: Any) -> T:
        """Run `prepare` or `prepare_regions` on a thread, and count a picture that is refused."""
        try:
            found: T = await self._workers.run(self._decode, work, data, *rest, limits=self._limits, **options)
            return found
        except InvalidInput as error:
            self._metrics.decode_failures.labels(error.kind).inc()
            raise


def whole_picture_boxes(
    corners: NDArray[np.float32], scores: NDArray[np.float32], prepared: Prepared
) -> NDArray[np.float32]:
    """Map boxes from pixels of the model's input to the whole picture.

    corners: [m, 4], x0, y0, x1, y1 in `prepared.pixels`; scores: [m]. Returns [m, 5]: x, y, width, height, score.
    """
    height, width = prepared.pixels.shape[:2]
    region = prepared.region
    zoom = np.array([region.width / width, region.height / height], np.float32)
    start = corners[:, :2] * zoom + np.array([region.x, region.y], np.float32)
    size = (corners[:, 2:] - corners[:, :2]) * zoom
    return np.asarray(np.concatenate([start, size, scores[:, None]], axis=1), np.float32)
