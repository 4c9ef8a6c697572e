"""Every request message with hostile values, against a server over a stand-in for Triton: always a clear status.

LANDSEER_FUZZ_REQUESTS (`make fuzz`) tells how many.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from fake_triton import SIZES, FakeTriton
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from landseer.ensemble.config import MIB, Limits, ServerConfig
from landseer.v1 import index_pb2, search_pb2

FUZZ = int(os.environ.get("LANDSEER_FUZZ_REQUESTS", "2000"))
AT_ONCE = 10
"""Requests of one example, sent together: hypothesis takes longer to make them than the server to refuse them."""
CLEAR = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
F = FieldDescriptor
SERVICES = (
    *search_pb2.DESCRIPTOR.services_by_name.values(),
    *index_pb2.DESCRIPTOR.services_by_name.values(),
)
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PICTURE = _picture()


def mostly(usual: st.SearchStrategy[Any], hostile: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Three in four are usual: a request with several hostile values tries only the first check."""
    return st.integers(0, 3).flatmap(lambda one: usual if one else hostile)


IDS = mostly(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "x" * 513, "é", "\0", "../a", "a\nb"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
INTEGERS = mostly(st.integers(1, 10), st.sampled_from([0, 50, 51, 1000, 1001, 2**31 - 1]))
BYTES = mostly(
    st.just(PICTURE),
    st.builds(lambda cut: PICTURE[:cut], st.integers(0, len(PICTURE)))
    | st.builds(
        lambda at, value: PICTURE[:at] + bytes([value]) + PICTURE[at + 1 :],
        st.integers(0, len(PICTURE) - 1),
        st.integers(0, 255),
    )
    | st.binary(max_size=16),
)
FLOATS = mostly(
    st.sampled_from([0.5, 1.0, 3.0, 20.0]),
    st.sampled_from([0.0, -0.0, -1.0, 1e30, -1e30, float("nan"), float("inf")]) | st.floats(width=32),
)
FILTERS = mostly(
    st.sampled_from(['a = "b"', 'id:"a*" OR -metadata:b', "NOT (a > 1 AND b:*)", "a != 2019-01-01 b < x", ""]),
    st.lists(st.sampled_from(["a", "id", "=", ":", "<", "(", ")", "NOT", "OR", '"*"', "'", "\\", "é"]), max_size=9).map(
        " ".join
    ),
)
VALUES = {
    F.TYPE_STRING: IDS,
    F.TYPE_BYTES: BYTES,
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_FLOAT: FLOATS,
    F.TYPE_DOUBLE: FLOATS,
    F.TYPE_UINT32: INTEGERS | st.just(2**32 - 1),
    F.TYPE_UINT64: INTEGERS,
    F.TYPE_INT32: INTEGERS | st.just(-1),
    F.TYPE_INT64: INTEGERS | st.just(-1),
    F.TYPE_ENUM: mostly(st.integers(0, 3), st.integers(-1, 9) | st.just(2**31 - 1)),
}


def value_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is None:
        return FILTERS if field.name == "filter" else VALUES[field.type]
    return message_of(field.message_type)


def field_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if not field.is_repeated:
        return value_of(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(IDS, IDS, max_size=3)
    if field.type == F.TYPE_FLOAT:  # a descriptor: of the right length, too
        return mostly(st.builds(lambda one: [one] * SIZES.channels, FLOATS), st.lists(FLOATS, max_size=3))
    return st.lists(value_of(field), max_size=3)


def message_of(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """A message with what it needs, as a rule, and up to two other fields."""
    fields = {field.name: field_of(field) for field in descriptor.fields}
    alone = [name for name in ("id", "image", "picture") if name in fields and not descriptor.oneofs]
    needed = st.tuples(*map(st.just, alone))
    if descriptor.oneofs:
        needed = st.tuples(st.sampled_from([field.name for field in descriptor.oneofs[0].fields]))

    @st.composite
    def made(draw: st.DrawFn) -> Any:
        names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)) if fields else []
        names += draw(mostly(needed, st.just(())))
        return GetMessageClass(descriptor)(**{name: draw(fields[name]) for name in dict.fromkeys(names)})

    return made()


REQUESTS = st.one_of(
    *(st.tuples(st.just(path), message_of(method.input_type)) for path, method in METHODS.items()),
    # What is no message at all.
    st.tuples(st.sampled_from(sorted(METHODS)), st.binary(min_size=1, max_size=20)),
)


class Running:
    """A server on an event loop of its own, for tests without one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self._start(config), timeout=180)

    def run(self, coroutine: Any, timeout: float = 60) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout)

    async def _start(self, config: dict[str, Any]) -> None:
        from landseer.ensemble.app.server import start_server

        self._triton = await FakeTriton().start()
        self.server = await start_server(ServerConfig(triton=self._triton.address, **config))
        await self.server.ready(120)
        self._channel = grpc.aio.insecure_channel(self.server.address)

    async def call(self, path: str, request: Any) -> tuple[grpc.StatusCode, str]:
        """Send a request, as a message or as bytes. Return the status, and its machine-readable reason."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        streams = METHODS[path].client_streaming
        make = self._channel.stream_unary if streams else self._channel.unary_unary
        try:
            await make(path)(iter([raw, raw]) if streams else raw, timeout=30)
        except grpc.aio.AioRpcError as error:
            status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
            status.ParseFromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
            for detail in status.details:
                detail.Unpack(info)
            return error.code(), info.reason or str(error.details())
        return grpc.StatusCode.OK, ""

    async def calls(self, requests: list[tuple[str, Any]]) -> list[tuple[grpc.StatusCode, str]]:
        return list(await asyncio.gather(*(self.call(*one) for one in requests)))

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())

    def stop(self) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        await self._channel.close()
        await self.server.stop(0.0)
        await self._triton.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    made = Running(
        {
            "store": tmp_path_factory.mktemp("fuzz") / "store",
            "listen": "127.0.0.1:0",
            "metrics": None,
            "threads": 1,
            "max_top_k": 50,
            "store_limit_bytes": 64 * MIB,
            "limits": Limits(max_bytes=MIB, max_pixels=10**6),
            "poll_s": 5.0,
            "poll_timeout_s": 30.0,
        }
    )
    yield made
    made.stop()


def test_fuzz_of_every_request_gives_a_clear_status(running: Running) -> None:
    @settings(
        max_examples=max(1, FUZZ // AT_ONCE),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(REQUESTS, min_size=AT_ONCE, max_size=AT_ONCE))
    def answers(requests: list[tuple[str, Any]]) -> None:
        for (path, request), (code, reason) in zip(requests, running.run(running.calls(requests)), strict=True):
            assert code in CLEAR and reason != "UNEXPECTED", (path, request, code, reason)

    for name in "ab":
        picture = index_pb2.Picture(id=name, image=PICTURE)
        assert running.run(running.call("/landseer.v1.IndexService/Upsert", index_pb2.UpsertRequest(picture=picture)))
    process = psutil.Process()
    before, files, tasks = process.memory_info().rss, process.num_fds(), running.run(running.tasks())
    answers()
    # Nothing is left behind: no request, no task, no file, and no memory beyond what the pictures of a test take.
    assert running.server.health.serving
    until = time.monotonic() + 30
    while running.run(running.tasks()) > tasks + 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert running.run(running.tasks()) <= tasks + 2
    assert process.num_fds() <= files + 4  # gRPC may have opened a connection or two.
    assert process.memory_info().rss - before < 500 * MIB
