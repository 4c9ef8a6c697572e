"""Connections that die silently: to Triton, and from clients that ping."""

from __future__ import annotations

import asyncio
import time

import pytest
from freezing_proxy import FreezingProxy

from landseer.client import SearchClient, keepalive
from landseer.ensemble.config import NONE


@pytest.fixture
def quick(monkeypatch) -> None:
    """Keepalive in half a second instead of sixteen."""
    monkeypatch.setattr(keepalive, "TIME_MS", 300)
    monkeypatch.setattr(keepalive, "TIMEOUT_MS", 300)


async def test_a_frozen_connection_to_triton_is_replaced(start, fake_triton, picture, quick) -> None:
    async with FreezingProxy(fake_triton.address) as proxy:
        landseer = await start(triton=proxy.address, poll_timeout_s=0.3, local_features=NONE)
        await landseer.put(a=picture(1))
        proxy.freeze()
        began = time.monotonic()
        async with SearchClient(landseer.server.address, patience=20) as client:
            # What is in flight is lost with its connection; the caller's retries reach the new one.
            assert (await client.search(picture(1))).hits[0].id == "a"
        assert time.monotonic() - began < 10
        assert proxy.connections >= 2


async def test_a_client_that_pings_without_calls_is_not_cut_off(start, monkeypatch) -> None:
    monkeypatch.setattr(keepalive, "SHORTEST_PAUSE_MS", 500)
    accepted = keepalive.server_options()
    monkeypatch.setattr(keepalive, "server_options", lambda: (*accepted, ("grpc.http2.max_ping_strikes", 1)))
    landseer = await start(local_features=NONE)
    monkeypatch.setattr(keepalive, "TIME_MS", 300)
    async with FreezingProxy(landseer.server.address) as proxy, SearchClient(proxy.address) as client:
        await client.stats()
        await asyncio.sleep(2.6)  # gRPC pings once a second at most, and now allows one that comes too soon
        assert client._channel.get_state().name == "READY"
        await client.stats()
        assert proxy.connections == 1
