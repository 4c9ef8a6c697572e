"""Connections that die silently, servers that hang, processes that fork, answers that are large."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import grpc
import pytest
from freezing_proxy import FreezingProxy

from landseer.client import SearchClient, keepalive
from landseer.client.channel import MAX_ANSWER_BYTES
from landseer.client.errors import DeadlinePassed, Exhausted, NotReady, RpcFailed
from landseer.ensemble.config import MIB, ServerConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.v1 import search_pb2

FORKING = """
import asyncio, os, sys
from landseer.client import BlockingSearchClient, SearchClient
from landseer.client.errors import ForkedClient
address, case = sys.argv[1:]
made, waiting = BlockingSearchClient(address, timeout=3), SearchClient(address, timeout=3)
if case == "connected":
    made.stats()
child = os.fork()
if child == 0:
    try:
        if case == "connected":
            for one in (made, BlockingSearchClient(address, timeout=3)):
                try:
                    one.stats()
                except ForkedClient as error:
                    print(error, flush=True)
                one.close()
        else:
            print(made.stats().backbone, asyncio.run(waiting.stats()).backbone, flush=True)
            made.close()
    finally:
        os._exit(0)
os.waitpid(child, 0)
print("parent", made.stats().backbone)
made.close()
"""


@pytest.fixture
def quick(monkeypatch) -> None:
    """Keepalive in half a second instead of sixteen."""
    monkeypatch.setattr(keepalive, "TIME_MS", 300)
    monkeypatch.setattr(keepalive, "TIMEOUT_MS", 300)


@pytest.fixture
def tcp(fake):
    """The fake on a port of loopback: a proxy needs one."""
    server = type(fake)(f"{LOOPBACK}:{free_port()}")
    server.start()
    server.set_serving(True)
    yield server
    server.stop()


def test_the_times_of_keepalive_agree() -> None:
    connecting_ms = 2_000
    assert keepalive.TIME_MS + keepalive.TIMEOUT_MS + connecting_ms <= 20_000
    assert keepalive.SHORTEST_PAUSE_MS < keepalive.TIME_MS
    assert keepalive.SHORTEST_PAUSE_MS < 10_000  # what others' clients send


async def test_a_frozen_connection_is_replaced(tcp, quick) -> None:
    async with FreezingProxy(tcp.address) as proxy, SearchClient(proxy.address) as client:
        await client.stats()
        proxy.freeze()
        began = time.monotonic()
        # The call that finds out is tried again by gRPC, on the new connection.
        assert (await client.stats(timeout=10)).backbone == "lite0"
        assert time.monotonic() - began < 5
        assert proxy.connections >= 2


async def test_a_new_client_does_not_get_the_frozen_connection_of_another(tcp) -> None:
    async with FreezingProxy(tcp.address) as proxy, SearchClient(proxy.address) as frozen:
        await frozen.stats()
        proxy.freeze()
        with pytest.raises(DeadlinePassed):
            await frozen.stats(timeout=0.2)
        async with SearchClient(proxy.address) as client:
            assert (await client.stats(timeout=5)).backbone == "lite0"


@pytest.mark.parametrize("hangs", ["the server", "the connection"])
async def test_waiting_for_a_server_that_hangs_takes_the_whole_time_and_says_why(tcp, monkeypatch, hangs) -> None:
    monkeypatch.setattr("landseer.client.client._LONGEST_CHECK", 0.2)
    if hangs == "the server":
        monkeypatch.setattr(tcp.health, "Check", lambda request, context: time.sleep(0.4))
        tcp.stop()
        tcp.start()
    async with FreezingProxy(tcp.address) as proxy, SearchClient(proxy.address) as client:
        proxy.held = hangs == "the connection"
        began = time.monotonic()
        with pytest.raises(NotReady, match=r"not ready within 1 s: .*"):
            await client.wait_ready(1)
        assert 0.8 < time.monotonic() - began < 5


async def test_waiting_ends_when_the_server_recovers(tcp, monkeypatch, quick) -> None:
    monkeypatch.setattr("landseer.client.client._LONGEST_CHECK", 0.2)
    async with FreezingProxy(tcp.address) as proxy, SearchClient(proxy.address) as client:
        proxy.held = True
        waiting = asyncio.ensure_future(client.wait_ready(20))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        proxy.held = False
        await waiting


@pytest.mark.parametrize("case", ["unused", "connected"])
def test_a_client_made_before_a_fork(tcp, case) -> None:
    """One that has called nothing works in the child. Any other, and any new one, fails at once and says what to do."""
    # gRPC's own handlers of forks crash a child now and then; they make no difference to what is tested.
    done = subprocess.run(
        [sys.executable, "-c", FORKING, tcp.address, case],
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    *child, parent = done.stdout.splitlines()
    assert parent == "parent lite0"
    if case == "unused":
        assert child == ["lite0 lite0"]
    else:
        assert len(child) == 2
        assert all("make a client in each process" in line for line in child)


def test_a_client_takes_what_a_server_sends_by_default(tmp_path) -> None:
    assert ServerConfig(store=tmp_path).max_answer_bytes <= MAX_ANSWER_BYTES


async def test_the_largest_answer_is_an_option_and_the_error_names_it(fake) -> None:
    fake.answer = search_pb2.SearchResponse(hits=[search_pb2.Hit(id="a", metadata={"text": "x" * MIB})])
    async with SearchClient(fake.address) as client:
        assert (await client.search("a")).hits[0].id == "a"
    async with SearchClient(fake.address, max_answer_bytes=MIB // 2) as client:
        with pytest.raises(Exhausted, match="max_answer_bytes"):
            await client.search("a")


async def test_a_request_may_be_as_large_as_the_server_allows(fake) -> None:
    async with SearchClient(fake.address) as client:
        with pytest.raises(RpcFailed, match="the server takes no larger request") as caught:
            await client.search(b"x" * (9 * MIB))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
