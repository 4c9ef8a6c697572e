"""Writes while reads are overloaded or metrics fail: what was stored and indexed is reported as done."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import numpy as np
import pytest
from fake_triton import PROFILE, SIZES
from records import plain_record, unit_halves

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.errors import IndexLoading, NotFound, Overloaded, StoreUnavailable, Unfinished
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.writer import Writer
from landseer.ensemble.telemetry.metrics import Metrics

VECTORS = unit_halves(4, SIZES.channels, seed=0)


def record(row):
    return plain_record(f"p{row}", reduced=SIZES.reduced, descriptor=VECTORS[row])


@pytest.fixture
async def collection(tmp_path):
    config = ServerConfig(store=tmp_path / "store", store_limit_bytes=2**24, threads=1, local_features=NONE)
    opened = await Collection.open(config, PROFILE, Metrics())
    await opened.load()
    yield opened
    await asyncio.to_thread(opened.close)


@pytest.fixture
async def writer(collection):
    made = Writer(collection)
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def overloaded_reads(collection, monkeypatch):
    """All threads that read are busy, and their queue is full."""
    gate, get = threading.Event(), collection.store.get
    monkeypatch.setattr(collection.store, "get", lambda id: (gate.wait(30), get(id))[1])
    readers = [asyncio.create_task(collection.get("p0")) for _ in range(260)]
    await asyncio.sleep(0.1)
    with pytest.raises(Overloaded):
        await collection.stats()
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*readers)


async def found(collection, row):
    return (await collection.search(VECTORS[row].astype(np.float32), 1)).keys.tolist()


async def test_writes_succeed_while_reads_are_overloaded(collection, writer, monkeypatch):
    await writer.put([record(0), record(1)])
    async with overloaded_reads(collection, monkeypatch):
        assert (await writer.put([record(2)]))[0].key == 3
        assert await found(collection, 2) == [3]
        assert (await writer.delete("p1")).replaced_key == 2
    with pytest.raises(NotFound):
        await writer.delete("p1")


async def test_a_delete_that_is_stored_and_not_in_the_index_says_so(collection, writer, monkeypatch):
    async def broken(*_):
        raise MemoryError("no room")

    await writer.put([record(0), record(1)])
    with monkeypatch.context() as for_now:
        for_now.setattr(collection, "apply", broken)
        for_now.setattr(collection, "load", broken)
        with pytest.raises(Unfinished, match="the change is stored, but not in the index yet"):
            await writer.delete("p0")
        with pytest.raises(IndexLoading, match="nothing was done"):
            await writer.delete("p1")
    with pytest.raises(NotFound):
        await writer.delete("p0")
    await writer.delete("p1")


async def test_a_store_that_is_away_is_asked_once_for_all_that_wait(collection, writer, monkeypatch):
    asked = []

    def away(records):
        asked.extend(record.id for record in records)
        raise StoreUnavailable("the database does not answer")

    with monkeypatch.context() as for_now:
        for_now.setattr(collection.store, "put_many", away)
        writes = [writer.put([record(row)]) for row in range(4)]
        failed = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(error) for error in failed] == [StoreUnavailable] * 4
    assert asked == [f"p{row}" for row in range(4)]
    assert (await writer.put([record(0)]))[0].key == 1


async def test_an_index_is_rebuilt_once_while_reads_are_overloaded(collection, writer, monkeypatch):
    await writer.put([record(0)])
    loads, load = [], collection.load

    async def counted():
        loads.append(1)
        await load()

    async def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(collection, "load", counted)
    async with overloaded_reads(collection, monkeypatch):
        with monkeypatch.context() as once:
            once.setattr(collection, "apply", broken)
            await writer.put([record(1)])
        await writer.put([record(2)])
        assert loads == [1]
        assert [await found(collection, row) for row in (1, 2)] == [[2], [3]]


async def test_metrics_that_fail_decide_no_result(collection, writer, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no figures")

    monkeypatch.setattr(collection.store, "stats", broken)
    monkeypatch.setattr(collection.metrics.write_batch, "observe", broken)
    monkeypatch.setattr(collection.metrics.search_batch, "observe", broken)
    await collection.load()
    assert [change.key for change in await writer.put([record(0)])] == [1]
    for _ in range(2):
        assert await asyncio.wait_for(found(collection, 0), 5) == [1]
    assert "no figures" in caplog.text


@contextlib.asynccontextmanager
async def slow_index(collection, monkeypatch):
    """Changes are stored, and reach the index only at the end of the block."""
    gate, stored, apply = asyncio.Event(), asyncio.Event(), collection.apply

    async def slow(*change):
        stored.set()
        await gate.wait()
        await apply(*change)

    monkeypatch.setattr(collection, "apply", slow)
    try:
        yield stored
    finally:
        gate.set()


async def test_a_write_given_up_before_its_turn_is_dropped_and_one_that_began_completes(
    collection, writer, monkeypatch
):
    async with slow_index(collection, monkeypatch) as stored:
        began = asyncio.create_task(writer.put([record(0)]))
        await stored.wait()
        waits = asyncio.create_task(writer.put([record(1)]))
        await asyncio.sleep(0)
        for task in (began, waits):
            task.cancel()
        await asyncio.wait([began, waits])
    assert [change.key for change in await writer.put([record(2)])] == [2]
    assert [await found(collection, row) for row in (0, 2)] == [[1], [2]]
    with pytest.raises(NotFound):
        await collection.get("p1")


async def test_get_may_show_a_write_that_is_not_acknowledged_yet(collection, writer, monkeypatch):
    async with slow_index(collection, monkeypatch) as stored:
        put = asyncio.create_task(writer.put([record(0)]))
        await stored.wait()
        assert (await collection.get("p0")).key == 1
        assert not put.done() and await found(collection, 0) == []
    await put
    assert await found(collection, 0) == [1]
