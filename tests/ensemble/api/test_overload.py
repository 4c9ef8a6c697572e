"""Overload at the door and at the gates of a running orchestrator: real gRPC, a stand-in for Triton."""

from __future__ import annotations

import asyncio
import gc
import io

import numpy as np
import pytest
from grpc.aio import AioRpcError
from PIL import Image

from landseer.ensemble.api import door, interceptors
from landseer.ensemble.api.status import PUSHBACK_KEY, pushback
from landseer.ensemble.app.server import RECEIVING
from landseer.ensemble.config import NONE
from landseer.ensemble.errors import Overloaded, StoreFull
from landseer.v1 import index_pb2, search_pb2

Search = search_pb2.SearchRequest
LARGE = 3_000_000


def large(seed: int) -> bytes:
    """A picture of nearly 4 MB: noise, which PNG cannot compress."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (1000, 1200, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


async def settled(landseer, *, calls: int) -> None:
    """Wait until so many calls are open."""
    while landseer.metric("landseer_open_calls") != calls:
        await asyncio.sleep(0.01)


async def refused(call) -> AioRpcError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return caught.value


async def test_searches_by_id_are_let_in_while_those_by_picture_are_refused_and_cost_no_decoding(start, picture, rich):
    landseer = await start(in_flight=1, waiting=0)
    await landseer.put(a=picture())
    landseer.triton.delays["describe"] = 30.0
    busy = landseer.search.Search(Search(image=picture()))
    while not landseer.metric("landseer_admitted", lane="search"):
        await asyncio.sleep(0.01)
    error = rich(await refused(landseer.search.Search(Search(image=b"refused before anybody looks at it"))))
    assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert error.retry_s is not None
    assert landseer.metric("landseer_decode_failures_total", reason="format") == 0
    assert (await landseer.search.Search(Search(id="a", top_k=1))).index_size == 1
    busy.cancel()


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(start, picture, rich):
    landseer = await start()
    await landseer.put(a=picture())
    landseer.triton.delays["describe"] = 1.0
    for _ in range(2):
        await landseer.search.Search(Search(image=picture()))
    gate = landseer.triton.gates["describe"] = asyncio.Event()
    busy = landseer.search.Search(Search(image=picture()))
    while not landseer.metric("landseer_admitted", lane="search"):
        await asyncio.sleep(0.01)
    described = len(landseer.triton.calls)
    error = rich(await refused(landseer.search.Search(Search(image=picture()), timeout=0.8)))
    assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert "the deadline leaves" in error.message
    gate.set()
    await busy
    assert landseer.metric("landseer_shed_total", lane="search", reason="deadline") == 1
    assert len(landseer.triton.calls) <= described + 1


async def test_more_calls_than_may_be_open_are_refused_before_they_are_read(start, picture, rich):
    landseer = await start(calls=2)
    await landseer.put(a=picture())
    landseer.triton.delays["describe"] = 30.0
    busy = [landseer.search.Search(Search(image=picture())) for _ in range(2)]
    await settled(landseer, calls=2)
    error = rich(await refused(landseer.search.Search(Search(id="a"))))
    assert (error.code.name, error.reason, error.retry_s) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 1.0)
    assert "2 calls are open" in error.message
    assert landseer.metric("landseer_shed_total", lane="any", reason="calls") == 1
    assert await landseer.serving(), "health checks are no calls of ours"
    for call in busy:
        call.cancel()
    await settled(landseer, calls=0)
    assert (await landseer.search.Search(Search(id="a", top_k=1))).index_size == 1


async def test_more_bytes_than_may_be_in_flight_are_refused_and_small_ones_are_not(start, picture, rich):
    landseer = await start(bytes_in_flight=LARGE)
    await landseer.put(a=picture())
    landseer.triton.delays["describe"] = 30.0
    busy = landseer.search.Search(Search(image=large(0)))
    while not landseer.metric("landseer_bytes_in_flight"):
        await asyncio.sleep(0.01)
    error = rich(await refused(landseer.search.Search(Search(image=large(1)))))
    assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert landseer.metric("landseer_shed_total", lane="any", reason="bytes") == 1
    assert (await landseer.search.Search(Search(id="a", top_k=1))).index_size == 1
    busy.cancel()
    await settled(landseer, calls=0)
    assert landseer.metric("landseer_bytes_in_flight") == 0


async def test_a_stream_waits_instead(start):
    landseer = await start(bytes_in_flight=LARGE)
    landseer.triton.delays["describe_full"] = 0.1
    most = 0.0

    async def watch():
        nonlocal most
        while True:
            most = max(most, landseer.metric("landseer_bytes_in_flight"))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    one = large(0)
    pictures = [index_pb2.Picture(id=f"p{number}", image=one) for number in range(4)]
    answer = await landseer.index.UpsertMany(index_pb2.UpsertManyRequest(picture=picture) for picture in pictures)
    watching.cancel()
    assert (answer.indexed, len(answer.failures)) == (4, 0)
    assert len(one) <= most < 2 * len(one)


def kept(*, least: int) -> list[str]:
    """Return the types of what holds on to blocks of at least so many bytes."""
    holding = ((type(one).__name__, gc.get_referents(one)) for one in gc.get_objects())
    return sorted(name for name, held in holding for one in held if isinstance(one, bytes) and len(one) >= least)


async def test_no_picture_stays_in_memory_after_its_call(start):
    """Answered and refused ones, and those of a stream that fails, before any garbage is collected."""
    landseer = await start()
    image, before = large(0), kept(least=LARGE)
    gc.disable()
    try:
        for _ in range(3):
            await landseer.search.Search(Search(image=image))
            await refused(landseer.search.Search(Search(image=bytes(LARGE))))
            stream = [index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id="a", image=image))]
            await landseer.index.UpsertMany(iter([*stream, index_pb2.UpsertManyRequest()]))
        await settled(landseer, calls=0)
        assert kept(least=LARGE) == before
    finally:
        gc.enable()


def test_errors_that_name_each_other_as_causes_let_go_of_their_frames():
    try:
        raise ValueError("one") from KeyError("another")
    except ValueError as error:
        error.__cause__.__cause__ = error
        interceptors._forget_frames(error)
        assert error.__traceback__ is None


async def test_a_message_that_is_none_is_the_callers_mistake(landseer, rich):
    raw = landseer.channel.unary_unary("/landseer.v1.SearchService/Search")
    error = rich(await refused(raw(b"\xff\xff\xff")))
    assert (error.code.name, error.fields) == ("INVALID_ARGUMENT", ["request"])
    empty = landseer.channel.stream_unary("/landseer.v1.SearchService/Search")
    error = rich(await refused(empty(iter(()))))
    assert (error.code.name, error.fields) == ("INVALID_ARGUMENT", ["request"])


@pytest.fixture
async def slow_senders(landseer, picture):
    """As many as are received at a time, each with a call whose message never comes."""
    await landseer.put(a=picture())
    search = landseer.channel.stream_unary("/landseer.v1.SearchService/Search")
    calls = [search() for _ in range(RECEIVING)]
    await settled(landseer, calls=RECEIVING)
    yield
    for call in calls:
        call.cancel()
    await settled(landseer, calls=0)


async def test_slow_senders_make_way(monkeypatch, landseer, slow_senders):
    monkeypatch.setattr(door, "WAIT_S", 60.0)
    assert (await landseer.search.Search(Search(id="a", top_k=1))).index_size == 1


async def test_what_is_not_received_soon_is_refused(monkeypatch, landseer, rich):
    monkeypatch.setattr(door, "SLOW_S", 60.0)
    monkeypatch.setattr(door, "WAIT_S", 0.1)
    search = landseer.channel.stream_unary("/landseer.v1.SearchService/Search")
    slow = [search() for _ in range(RECEIVING)]
    await settled(landseer, calls=RECEIVING)
    error = rich(await refused(landseer.search.Search(Search(id="a"))))
    assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert landseer.metric("landseer_shed_total", lane="any", reason="sending") == 1
    for call in slow:
        call.cancel()
    await settled(landseer, calls=0)
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).pictures == 0


def test_grpcs_own_retries_are_told_when_to_come_back_or_not_to():
    [(key, value)] = pushback(Overloaded("full", retry_after_s=2.0), None)
    assert key == PUSHBACK_KEY
    assert 2000 <= int(value) <= 3000
    assert pushback(Overloaded("full", retry_after_s=2.0), 1.5) == ((PUSHBACK_KEY, "-1"),), "no time is left for it"
    assert pushback(StoreFull("full"), None) == ((PUSHBACK_KEY, "-1"),)
    assert pushback(ValueError(), None) == ()


@pytest.mark.parametrize("model", ["lattqe", "coattention"])
async def test_stages_take_turns_with_triton_like_all_else(start, picture, model):
    """With one turn, the second request's stage waits, and is not sent."""
    landseer = await start(in_flight=1, local_features=NONE)
    await landseer.put(a=picture(1), b=picture(2))
    landseer.triton.delays[model] = 30.0
    how = {
        "lattqe": {"expansion": search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, allow_untrained=True)},
        "coattention": {"reranking": search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION)},
    }[model]

    def sent() -> int:
        return [call.model for call in landseer.triton.calls].count(model)

    searches = [landseer.search.Search(Search(id="a", **how)) for _ in range(2)]
    # The first has its turn some time before its call is at Triton.
    while not (landseer.metric("landseer_waiting", lane="stage") == 1 and sent()):
        await asyncio.sleep(0.01)
    for _ in range(20):
        assert sent() == 1
        await asyncio.sleep(0.01)
    assert landseer.metric("landseer_waiting", lane="stage") == 1
    for search in searches:
        search.cancel()
