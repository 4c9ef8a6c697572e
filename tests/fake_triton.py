"""A stand-in for Triton in tests: its real gRPC protocol, with arithmetic in place of models.

Everything that can go wrong with Triton can be switched on: models not ready, errors, slowness, another profile, death.
The arithmetic is simple but true to the contracts, so that near pictures get near descriptors.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from landseer.ensemble.inference.contracts import PATCH_BITS, Sizes, ensembles
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import MODELS, PROFILE_PARAMETER, TIMEOUT_PARAMETER

SIZES = Sizes(channels=48, reduced=12, locals=32, local=32, clusters=4, boxes=2, neighbours=64, candidates=1000)
PROFILE = Profile(
    backbone="fake",
    weights_sha256="0" * 64,
    locals_sha256="1" * 64,
    sizes=SIZES,
    long_side=128,
    untrained=("lattqe",),
)
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One ModelInfer as it arrived."""

    model: str
    shapes: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    timeout_us: int
    """Triton's own request parameter; 0 if it was not sent."""
    timeout: str
    """Our request parameter; empty if it was not sent."""
    time_remaining: float | None
    """Seconds that the gRPC deadline left."""
    traceparent: str
    """As it came in the metadata; empty if it did not."""


@dataclass(kw_only=True)
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer, health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Start it, point an adapter at `address`, and turn its knobs while it runs."""

    profile: Profile = PROFILE
    version: str = "1"
    release: str = "2.75.0"
    """Of Triton; one before 2.57 may crash when an inference is cancelled."""
    ready: bool = True
    unloaded: set[str] = field(default_factory=set)
    """Models that are not loaded."""
    delays: dict[str, float] = field(default_factory=dict)
    """Seconds by model."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """By model: its calls wait until it is set, however slow the machine is."""
    failures: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    """What a model answers instead of tensors."""
    answered_version: str = ""
    """Version that answers name, if it is not `version`."""
    calls: list[Call] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """Models whose call was cancelled while it ran."""
    ended: list[str] = field(default_factory=list)
    """Models whose call ran to its end."""
    port: int = 0
    """Taken at the first start and kept for later ones."""
    _server: Any = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> FakeTriton:
        """Listen, on the same port as before if there was one."""
        self.port = self.port or free_port()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Die at once, as if killed: calls that run are cut off."""
        await self._server.stop(None)

    async def Check(self, request: Any, context: Any) -> Any:
        """Answer gRPC's health check by `ready`."""
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if self.ready else states.NOT_SERVING)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Answer by `ready`, after `delays["ModelReady"]`."""
        await asyncio.sleep(self.delays.get("ModelReady", 0.0))
        there = self.ready and request.name in MODELS and request.name not in self.unloaded
        return service_pb2.ModelReadyResponse(ready=there)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Unload a model."""
        self.unloaded.add(request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Load it again."""
        self.unloaded.discard(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """Answer with the profile."""
        config = model_config_pb2.ModelConfig(name=request.name)
        config.parameters[PROFILE_PARAMETER].string_value = self.profile.to_json()
        return service_pb2.ModelConfigResponse(config=config)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        """Answer with all models."""
        response = service_pb2.RepositoryIndexResponse()
        for name in MODELS:
            response.models.add(name=name, version=self.version, state="READY" if self.ready else "UNAVAILABLE")
        return response

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Answer with the release."""
        return service_pb2.ServerMetadataResponse(name="triton", version=self.release)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Wait, fail or compute; only for the version that is there now, or for any."""
        inputs = _inputs(request)
        self.calls.append(_call(request, inputs, context))
        try:
            await asyncio.sleep(self.delays.get(request.model_name, 0.0))
            if request.model_name in self.gates:
                await self.gates[request.model_name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.model_name)
            raise
        if request.model_name in self.unloaded:
            said = f"Request for unknown model: '{request.model_name}' has no available versions"
            await context.abort(grpc.StatusCode.UNAVAILABLE, said)
        if request.model_name in self.failures:
            await context.abort(*self.failures[request.model_name])
        if request.model_name == "describe_full" and not _all_steps(request):
            await context.abort(grpc.StatusCode.INTERNAL, "unexpected deadlock, at least one output is not set")
        if request.model_version not in ("", self.version):
            unknown = f"'{request.model_name}' version {request.model_version} is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {unknown}")
        outputs = _MODELS[request.model_name](inputs, self.profile.sizes)
        self.ended.append(request.model_name)
        return _response(request, outputs, self.answered_version or self.version)


def free_port() -> int:
    """Return a port that nobody listens on, below the ephemeral ones, where a client could connect to itself."""
    while True:
        port = random.randint(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def describe(inputs: Tensors, sizes: Sizes) -> Tensors:
    """Average colours of a 4 x 4 grid make the descriptor; their first values the query vector.

    With patches if the profile's sizes have any.
    """
    pixels = inputs["image"].astype(np.float32)[0]
    rows = [block for band in np.array_split(pixels, 4) for block in np.array_split(band, 4, axis=1)]
    cells = np.stack([block.mean(axis=(0, 1)) for block in rows]) / 255.0 - 0.45
    descriptor = _unit(cells.ravel()[: sizes.channels])
    vectors = {"descriptor": descriptor[None], "query_vector": _unit(descriptor[: sizes.reduced])[None]}
    return vectors | (_patch_outputs(inputs["image"][0], sizes) if sizes.patches else {})


def _describe_full(inputs: Tensors, sizes: Sizes) -> Tensors:
    """Local features lie on the diagonal, in turn of each cluster; one box covers the middle."""
    height, width = inputs["image"].shape[1:3]
    vectors = describe(inputs, sizes)
    count, places = sizes.locals // 2, np.arange(sizes.locals)
    positions = np.where(places < count, places, 0)[:, None] * np.array([width, height], np.float32) / np.float32(count)
    clusters = np.stack([np.roll(vectors["query_vector"][0], shift) for shift in range(sizes.clusters)])
    middle = np.array([[[width / 4, height / 4, 3 * width / 4, 3 * height / 4]]], np.float32)
    return vectors | {
        "attention": np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4),
        "image_size": np.array([[height, width]], np.int32),
        "boxes": np.concatenate([middle, np.zeros((1, sizes.boxes - 1, 4), np.float32)], axis=1),
        "box_scores": np.eye(1, sizes.boxes, dtype=np.float32) * np.float32(0.75),
        "box_count": np.array([[1]], np.int32),
        "clusters": clusters[None].astype(np.float16),
        "cluster_count": np.array([[sizes.clusters]], np.int32),
        "assignments": np.where(places < count, places % sizes.clusters, -1).astype(np.int32)[None],
        "local_count": np.array([[count]], np.int32),
        "local_positions": positions[None].astype(np.float32),
        "local_scales": np.ones((1, sizes.locals), np.float32),
        "local_norms": np.where(places < count, sizes.locals - places, 0).astype(np.float32)[None],
        "local_descriptors": _patches(inputs["image"][0], positions[:count], sizes)[None],
    }


def _patches(pixels: NDArray[Any], positions: NDArray[np.float32], sizes: Sizes) -> NDArray[np.float16]:
    """Colours around each position [n, 2], as unit rows [N, local], zero beyond n: like places are alike."""
    found = np.zeros((sizes.locals, sizes.local), np.float32)
    found[: len(positions)] = _colours(pixels, positions, sizes.local)
    return _unit(found).astype(np.float16)


def _colours(pixels: NDArray[Any], positions: NDArray[np.float32], values: int) -> NDArray[np.float32]:
    """Colours around each position [n, 2]: [n, values], about 0."""
    side = int(np.ceil(np.sqrt(values / 3)))
    around = np.pad(pixels, ((0, side), (0, side), (0, 0)), mode="edge").astype(np.float32) / 255.0 - 0.45
    found = np.zeros((len(positions), values), np.float32)
    for row, (x, y) in enumerate(positions.astype(int)):
        found[row] = around[y : y + side, x : x + side].ravel()[:values]
    return found


def _patch_outputs(pixels: NDArray[Any], sizes: Sizes) -> Tensors:
    """Patches lie on the centres of 16-pixel cells, evenly left out if too many; signs of colours are their bits."""
    height, width = pixels.shape[:2]
    y, x = np.meshgrid(np.arange(8, height, 16), np.arange(8, width, 16), indexing="ij")
    cells = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    count = min(sizes.patches, len(cells))
    positions = np.zeros((sizes.patches, 2), np.float32)
    positions[:count] = cells[np.linspace(0, len(cells) - 1, count).astype(int)]
    codes = np.zeros((sizes.patches, PATCH_BITS // 8), np.uint8)
    codes[:count] = np.packbits(_colours(pixels, positions[:count], PATCH_BITS) > 0, axis=1)
    return {
        "patch_codes": codes[None],
        "patch_count": np.array([[count]], np.int32),
        "patch_positions": positions[None],
        "patch_scales": (np.arange(sizes.patches) < count).astype(np.float32)[None],
    }


def _lattqe(inputs: Tensors, sizes: Sizes) -> Tensors:
    """Average query expansion: mean of the query and the neighbours that the mask lets through. Relevance is half."""
    mask = inputs["neighbour_mask"].astype(np.float32)
    total = inputs["query"] + (inputs["neighbours"] * mask[..., None]).sum(axis=1)
    weights = np.concatenate([np.ones((1, 1), np.float32), mask], axis=1)
    return {"expanded": _unit(total), "weights": weights, "relevance": mask / 2}


def _coattention(inputs: Tensors, sizes: Sizes) -> Tensors:
    """Co-attention with a temperature of 10 (Hu and Bors 2020, eq. 7 to 10)."""
    clusters = inputs["candidate_clusters"].astype(np.float32)
    there = np.arange(clusters.shape[2]) < inputs["candidate_counts"][..., None]
    cosines = np.einsum("bckp,bp->bck", clusters, inputs["query_vector"])
    raised = np.where(there, np.exp(10.0 * cosines), 0.0)
    weights = raised / np.maximum(raised.sum(axis=-1, keepdims=True), 1e-9)
    attended = _unit(np.einsum("bck,bckp->bcp", weights, clusters))
    scores = np.where(there.any(axis=-1), np.einsum("bcp,bp->bc", attended, inputs["query_vector"]), -1.0)
    return {"scores": scores.astype(np.float32), "cluster_weights": weights.astype(np.float32)}


_MODELS: dict[str, Callable[[Tensors, Sizes], Tensors]] = {
    "describe": describe,
    "describe_full": _describe_full,
    "lattqe": _lattqe,
    "coattention": _coattention,
}


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-6), np.float32)


def _inputs(request: Any) -> Tensors:
    pairs = zip(request.inputs, request.raw_input_contents, strict=True)
    return {
        tensor.name: np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tuple(tensor.shape))
        for tensor, raw in pairs
    }


def _call(request: Any, inputs: Tensors, context: Any) -> Call:
    return Call(
        model=request.model_name,
        shapes={name: array.shape for name, array in inputs.items()},
        outputs=tuple(output.name for output in request.outputs),
        timeout_us=request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0,
        timeout=request.parameters[TIMEOUT_PARAMETER].string_param if TIMEOUT_PARAMETER in request.parameters else "",
        time_remaining=context.time_remaining(),
        traceparent=dict(context.invocation_metadata() or ()).get("traceparent", ""),
    )


def _all_steps(request: Any) -> bool:
    """Say whether each last step of the ensemble is asked for something, which the real Triton insists on."""
    wanted = {output.name for output in request.outputs}
    detector, cluster = (set(step.outputs) for step in ensembles()["describe_full"].steps[1:])
    return bool(wanted & detector) and bool(wanted & cluster)


def _response(request: Any, outputs: Tensors, version: str) -> Any:
    """Only what was asked for, as Triton does."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=version)
    for wanted in request.outputs:
        array = outputs[wanted.name]
        response.outputs.add(name=wanted.name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response
