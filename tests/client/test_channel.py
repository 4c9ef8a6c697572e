"""One client, several servers: a target that names more than one address."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from landseer.client import SearchClient
from landseer.ops.run.ports import LOOPBACK, free_port


@pytest.fixture
def pair(fake):
    """Two servers on loopback that have nothing to do with each other."""
    with ExitStack() as ending:
        servers = [type(fake)(f"{LOOPBACK}:{free_port()}") for _ in range(2)]
        for server in servers:
            server.start()
            ending.callback(server.stop)
        yield servers


async def searches_until(client, condition, *, most: int = 200) -> None:
    for _ in range(most):
        await client.search(b"x")
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so after {most} searches")


async def test_the_addresses_of_a_target_take_turns(pair) -> None:
    async with SearchClient("ipv4:" + ",".join(server.address for server in pair)) as client:
        # The first connection is used as soon as it stands.
        await searches_until(client, lambda: all(server.requests["Search"] for server in pair))
        before = [len(server.requests["Search"]) for server in pair]
        for _ in range(20):
            await client.search(b"x")
        assert [len(server.requests["Search"]) - count for server, count in zip(pair, before, strict=True)] == [10, 10]


async def test_one_that_ends_is_left_out_without_an_error(pair) -> None:
    async with SearchClient("ipv4:" + ",".join(server.address for server in pair)) as client:
        await searches_until(client, lambda: all(server.requests["Search"] for server in pair))
        pair[0].stop()
        before = len(pair[1].requests["Search"])
        for _ in range(10):
            await client.search(b"x")
        assert len(pair[1].requests["Search"]) == before + 10


async def test_a_dns_target_is_resolved(pair) -> None:
    port = pair[0].address.rpartition(":")[2]
    async with SearchClient(f"dns:///localhost:{port}") as client:
        await client.search(b"x")
    assert len(pair[0].requests["Search"]) == 1
