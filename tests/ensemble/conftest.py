"""An orchestrator over a stand-in for Triton: real gRPC on both sides, real store, real index."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import FakeTriton, free_port
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from landseer.ensemble.config import ServerConfig
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Rich:
    """What a failed call says, taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: list[str]
    retry_s: float | None
    info: dict[str, str]
    request_id: str


@dataclass(frozen=True, kw_only=True)
class Landseer:
    """A running orchestrator and stubs for it."""

    server: Any
    triton: FakeTriton
    channel: grpc.aio.Channel
    search: Any
    index: Any
    health: Any

    async def serving(self, service: str = "") -> bool:
        answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def put(self, **pictures: bytes) -> None:
        for id, image in pictures.items():
            await self.index.Upsert(index_pb2.UpsertRequest(picture=index_pb2.Picture(id=id, image=image)))

    def metric(self, name: str, **labels: str) -> float:
        return self.server.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """A PNG of 4 x 4 coloured tiles, other colours for each seed."""

    def make(seed: int = 0, *, width: int = 96, height: int = 64, noise: float = 0.0) -> bytes:
        tiles = np.random.default_rng(seed).uniform(0, 255, (4, 4, 3))
        tiles = np.clip(tiles + np.random.default_rng(seed + 1000).normal(0, noise, tiles.shape), 0, 255)
        image = Image.fromarray(tiles.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture
def rich() -> Callable[[Any], Rich]:
    """Takes the google.rpc.Status of a failed call apart."""

    def parse(error: grpc.aio.AioRpcError) -> Rich:
        packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        status = status_pb2.Status.FromString(packed)
        info, bad, retry, request = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.RequestInfo(),
        )
        for detail in status.details:
            for message in (info, bad, retry, request):
                detail.Unpack(message)
        assert status.code == error.code().value[0]
        assert info.domain == "landseer"
        delay = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None
        return Rich(
            code=error.code(),
            message=error.details(),
            reason=info.reason,
            fields=[violation.field for violation in bad.field_violations],
            retry_s=delay,
            info=dict(info.metadata),
            request_id=request.request_id,
        )

    return parse


@pytest.fixture
async def fake_triton() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton().start()
    yield triton
    await triton.stop()


@pytest.fixture
def config(fake_triton: FakeTriton, tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        store=tmp_path / "store",
        listen=f"127.0.0.1:{free_port()}",
        triton=fake_triton.address,
        metrics=None,
        threads=2,
        max_top_k=50,
        store_limit_bytes=64 * 2**20,
        poll_s=0.1,
        poll_timeout_s=10.0,  # what is measured here is not how busy the machine is
        bulk_in_flight=4,
        decode_processes=False,  # These take a second to start.
    )


@pytest.fixture
async def start(fake_triton: FakeTriton, config: ServerConfig) -> AsyncIterator[Callable[..., Any]]:
    """Starts orchestrators; options change the configuration."""
    from landseer.ensemble.app.server import start_server

    running: list[Landseer] = []

    async def make(*, wait: bool = True, **options: Any) -> Landseer:
        server = await start_server(dataclasses.replace(config, **options))
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.aio.insecure_channel(server.address, options=unlimited)
        landseer = Landseer(
            server=server,
            triton=fake_triton,
            channel=channel,
            search=search_pb2_grpc.SearchServiceStub(channel),
            index=index_pb2_grpc.IndexServiceStub(channel),
            health=health_pb2_grpc.HealthStub(channel),
        )
        running.append(landseer)
        if wait:
            # The first one on a machine compiles loops, beside other tests.
            await server.ready(60.0)
        return landseer

    yield make
    for landseer in running:
        await landseer.channel.close()
        await landseer.server.stop(0.0)


@pytest.fixture
async def landseer(start: Callable[..., Any]) -> Landseer:
    running: Landseer = await start()
    return running
