"""What calls get from a server that stops: an answer, or UNAVAILABLE, which can be retried."""

from __future__ import annotations

import asyncio

import pytest
from fake_triton import free_port
from grpc.aio import AioRpcError

from landseer.client import SearchClient
from landseer.client.errors import ServerUnavailable
from landseer.ensemble.config import NONE
from landseer.v1 import index_pb2, search_pb2

SEARCH = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}


async def calls(landseer, count: int) -> None:
    """Wait until Triton has got so many calls in all."""
    while len(landseer.triton.calls) < count:
        await asyncio.sleep(0.01)


async def unfinished():
    """A stream of uploads that sends nothing."""
    await asyncio.sleep(60)
    yield index_pb2.UpsertManyRequest()


async def stopped(call, rich, reason="STOPPING") -> str:
    """Return what a call is told that is refused, or ended, because the server stops."""
    with pytest.raises(AioRpcError) as caught:
        await call
    error = rich(caught.value)
    assert (error.code.name, error.reason, error.retry_s) == ("UNAVAILABLE", reason, 1.0)
    return error.message


async def test_calls_that_a_stopping_server_does_not_do_are_unavailable(landseer, picture, rich):
    landseer.triton.delays["describe"] = 30.0
    request = search_pb2.SearchRequest(image=picture())
    endless, given_up = (landseer.search.Search(request) for _ in range(2))
    stream = landseer.index.UpsertMany(unfinished())
    await calls(landseer, 2)
    while landseer.metric("landseer_open_calls") != 3:
        await asyncio.sleep(0.01)
    landseer.server._door.close()  # As it does first when it stops.
    given_up.cancel()
    late = [landseer.index.Stats(index_pb2.StatsRequest()), landseer.index.Delete(index_pb2.DeleteRequest(id="a"))]
    late.append(landseer.index.UpsertMany(iter([index_pb2.UpsertManyRequest()])))
    for call in late:
        assert "nothing was done" in await stopped(call, rich)
    stopping = asyncio.create_task(landseer.server.stop(0.2))
    for call in (endless, stream):
        assert "may have been applied" in await stopped(call, rich, "UNFINISHED")
    await asyncio.wait_for(stopping, 10.0)
    # A call that its own caller cancels is CANCELLED also then.
    for code in ("UNAVAILABLE", "CANCELLED"):
        assert landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code=code) == 1


async def test_callers_with_two_addresses_do_not_notice_that_one_stops(start, tmp_path):
    pair = [await start(local_features=NONE, store=tmp_path / name, listen=f"127.0.0.1:{free_port()}") for name in "ab"]
    answered = 0

    async def caller(client: SearchClient) -> None:
        nonlocal answered
        while pair:
            await client.stats()
            answered += 1

    async with SearchClient("ipv4:" + ",".join(one.server.address for one in pair)) as client:
        callers = [asyncio.create_task(caller(client)) for _ in range(8)]
        while answered < 100:
            await asyncio.sleep(0.01)
        await pair[0].server.stop(5.0)
        before = answered
        while answered < before + 100:
            await asyncio.sleep(0.01)
        pair.clear()
        await asyncio.gather(*callers)


async def test_a_delete_that_was_not_begun_says_so_and_patience_retries_it(landseer):
    landseer.server._door.close()
    waits: list[str] = []
    async with SearchClient(landseer.server.address, on_wait=waits.append) as client:
        for client.patience, waited in ((0.0, False), (0.3, True)):
            with pytest.raises(ServerUnavailable, match="nothing was done") as caught:
                await client.delete("a")
            assert caught.value.reason == "STOPPING"
            assert bool(waits) == waited
