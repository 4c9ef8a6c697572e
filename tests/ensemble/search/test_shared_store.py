"""Two orchestrators over one PostgreSQL: what one writes, the other finds by words, filters and ids; and its absence.

Milvus is away, so searches are by words; `index/test_shared_index.py` has both.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import grpc
import pytest
from fake_triton import free_port
from grpc.aio import AioRpcError
from postgres_server import running

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.filters.kinds import indexed_field
from landseer.ensemble.index import live_index
from landseer.ensemble.postgres_address import postgres_address
from landseer.ensemble.store.postgres import database
from landseer.ensemble.store.reading import reading
from landseer.ensemble.store.store import Store
from landseer.v1 import index_pb2, search_pb2

DELAY_S = 2.0
"""After which another server finds what one has written: docs/scale.md."""


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def shared(server, start, request, monkeypatch):
    """Starts orchestrators over one store."""
    monkeypatch.setattr(live_index, "IDLE_S", 0.05)
    url = server.create(request.node.name[:60])
    fields = (indexed_field("place"),)
    engine = f"milvus://127.0.0.1:{free_port()}/pictures"

    def make(**options):
        address = f"127.0.0.1:{free_port()}"
        chosen = {"store": postgres_address(url), "engine": engine, "index_fields": fields, "listen": address}
        return start(**(chosen | options))

    return make


async def put(landseer, id, image, **metadata):
    await landseer.index.Upsert(
        index_pb2.UpsertRequest(picture=index_pb2.Picture(id=id, image=image, metadata=metadata))
    )


async def found(landseer, image, filter=""):
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=image, filter=filter))
    ids = [hit.id for hit in answer.hits]
    assert len(ids) == len(set(ids))
    return ids


async def soon(expected, ask):
    """Wait until a question is answered as expected, for as long as a change may take to be seen, on a busy machine."""
    until = time.monotonic() + 10 * DELAY_S
    while (answer := await ask()) != expected:
        assert time.monotonic() < until, answer
        await asyncio.sleep(0.05)


async def test_what_one_writes_the_other_finds_by_words_filters_and_ids(shared, picture):
    one, other = await shared(), await shared()
    images = {id: picture(seed, noise=4.0) for seed, id in enumerate("abc")}
    for (id, image), place in zip(images.items(), ("Ely", "Wells", "Ely"), strict=True):
        await put(one, id, image, place=place, year="1990")
        # The writer finds it at once.
        assert (await found(one, image))[0] == id
    for landseer in (one, other):
        await soon(["b"], partial(found, landseer, images["b"], 'place = "Wells"'))
        # A field that is not indexed, and ids.
        await soon(["b"], partial(found, landseer, images["b"], 'year = "1990" AND id = "b"'))
        listed = await landseer.index.List(index_pb2.ListRequest(filter="place = Ely", include_metadata=True))
        assert [(one.id, dict(one.metadata)) for one in listed.pictures] == [
            (id, {"place": "Ely", "year": "1990"}) for id in "ac"
        ]
        stats = await landseer.index.Stats(index_pb2.StatsRequest())
        assert (stats.pictures, stats.keypoints.pictures, stats.visual_words.pictures) == (3, 3, 3)
    # Replaced and deleted by the other one: other metadata, and no picture twice.
    await put(other, "b", images["b"], place="York")
    await other.index.Delete(index_pb2.DeleteRequest(id="a"))
    assert "a" not in await found(other, images["a"])
    await soon([], partial(found, one, images["b"], "place = Wells"))
    await soon(["b"], partial(found, one, images["b"], "place = York"))
    assert "a" not in await found(one, images["a"])
    got = await one.index.Get(index_pb2.GetRequest(id="b"))
    assert dict(got.metadata) == {"place": "York"}
    # Verified by the keypoints that the other stored, and shown with its thumbnail.
    answer = await one.search.Search(search_pb2.SearchRequest(image=images["b"], explain=True))
    first = answer.hits[0]
    assert first.id == "b" and first.verification.inliers > 10 and first.explanation.thumbnail
    assert [hit.id for hit in (await one.search.Search(search_pb2.SearchRequest(id="b"))).hits] == ["c"]


async def test_a_database_that_goes_away_is_told_and_waited_for(shared, server, picture, rich):
    landseer = await shared()
    await put(landseer, "a", picture(0))
    server.stop()
    calls = (
        lambda: landseer.index.Get(index_pb2.GetRequest(id="a")),
        lambda: put(landseer, "b", picture(1)),
        lambda: found(landseer, picture(0)),
        lambda: landseer.index.List(index_pb2.ListRequest()),
    )
    for call in calls:
        with pytest.raises(AioRpcError) as failed:
            await call()
        told = rich(failed.value)
        assert (told.code, told.reason, told.retry_s) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 1.0)
        assert f"the store {landseer.server._config.store} does not answer" in told.message
    await soon(False, landseer.serving)
    late = await shared(wait=False)
    await asyncio.sleep(0.5)
    assert not await late.serving()
    with pytest.raises(AioRpcError) as failed:
        await late.index.Get(index_pb2.GetRequest(id="a"))
    assert rich(failed.value).reason in ("STORE_UNAVAILABLE", "MODELS_UNAVAILABLE")
    server.start()
    for one in (landseer, late):
        await soon(True, one.serving)
    await put(landseer, "b", picture(1))
    assert (await found(landseer, picture(1)))[0] == "b" and (await found(landseer, picture(0)))[0] == "a"
    await soon(["a", "b"], lambda: ids_of(late))


async def test_a_database_that_hangs_is_told_and_waited_for(shared, server, picture, rich, monkeypatch):
    monkeypatch.setattr(database, "PROBE_S", 0.5)
    landseer = await shared()
    await put(landseer, "a", picture(0))
    with server.hanging():
        await soon(False, landseer.serving)
        with pytest.raises(AioRpcError) as failed:
            await landseer.index.Get(index_pb2.GetRequest(id="a"))
        assert rich(failed.value).reason == "STORE_UNAVAILABLE"
    await soon(True, landseer.serving)
    assert (await found(landseer, picture(0)))[0] == "a"


async def ids_of(landseer):
    return [one.id for one in (await landseer.index.List(index_pb2.ListRequest())).pictures]


def test_what_cannot_be_shared_is_refused(tmp_path):
    address = postgres_address("postgresql://db.example/pictures")
    with pytest.raises(ValueError, match=r"postgresql://db.example/pictures, which several servers .* give --engine"):
        ServerConfig(store=address)
    with pytest.raises(ValueError, match="a store in a database has raw ones only"):
        ServerConfig(store=address, engine="milvus://127.0.0.1:19530/x", vectors="augmented")
    with pytest.raises(RuntimeError, match="has no folder"):
        _ = ServerConfig(store=address, engine="milvus://127.0.0.1:19530/x").folder
    path = tmp_path.__class__("postgresql://db.example/pictures")
    with pytest.raises(StoreUnusable, match="this command is for stores in folders"):
        Store.open(path, fingerprint="f")
    with pytest.raises(StoreUnusable, match="this command is for stores in folders"), reading(path):
        pass
