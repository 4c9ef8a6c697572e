"""Milvus as the index: a real server, over TLS and with a token, against brute force and through its death.

One server serves all tests, on collections of their own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil

import milvus_server
import numpy as np
import pytest
from authorities import Authority
from fake_triton import PROFILE, SIZES
from milvus_truth import D, Truth, answering, opened
from records import plain_record

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.errors import IndexUnavailable, NotFound, StoreUnusable
from landseer.ensemble.index import milvus_collection, milvus_engine, milvus_filter
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.merging import Merger
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.store.outbox import Outbox
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops.bench.milvus_index import settled
from landseer.ops.run.milvus import PASSWORD

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def milvus(authority, tmp_path_factory):
    pair = authority.issue("milvus")
    settings = {"server_pem_path": str(pair.cert), "server_key_path": str(pair.key), "tls_mode": "1"}
    settings["authorization_enabled"] = "true"
    with milvus_server.running(tmp_path_factory.mktemp("milvus"), settings) as server:
        yield server


@pytest.fixture
def config(milvus, authority, tmp_path, request, monkeypatch):
    if "killed" not in request.node.name:
        # A busy machine is no fault.
        for limit in ("CONNECT_S", "SEARCH_S", "WRITE_S", "LOAD_S"):
            monkeypatch.setattr(milvus_collection, limit, 30.0)
    token = tmp_path / "token"
    token.write_text(f"{PASSWORD}\n")
    name = re.sub(r"\W", "_", request.node.name)
    return ServerConfig(
        store=tmp_path / "store",
        engine=f"milvuss://127.0.0.1:{milvus.port}/{name}",
        milvus_token=token,
        milvus_ca=authority.cert,
        index="Flat",
        local_features=NONE,
        store_limit_bytes=2**26,
        threads=1,
    )


async def test_milvus_finds_what_brute_force_finds_through_changes_and_under_filters(config, monkeypatch):
    # So that a filter of a few hundred pictures takes every way: named keys, parts of them, and more candidates.
    monkeypatch.setattr(milvus_filter, "NAMED", 60)
    monkeypatch.setattr(milvus_filter, "WIDEST", 128)
    truth = Truth(0)
    async with opened(dataclasses.replace(config, versions_from=10)) as (collection, writer):
        merger = Merger(collection, look_s=0.05)
        await answering(collection)
        assert len((await collection.search(np.ones(D, np.float32), 3)).keys) == 0
        for _ in range(4):
            await truth.change(writer, 45)
            await truth.agrees(collection)
        await merger.close()
        # Nothing is merged here: that is Milvus' affair.
        assert collection.versions.numbers == [] and collection.index.main is None
    # Another process, which has to send nothing.
    async with opened(config) as (collection, writer):
        await truth.agrees(collection)
        await truth.delete(writer, sorted(truth.held))
        assert len((await collection.search(np.ones(D, np.float32), 3)).keys) == 0


async def test_a_killed_milvus_loses_nothing_and_finds_nothing_twice(config, milvus, monkeypatch):
    monkeypatch.setattr(Outbox, "noted_every", 50)
    truth = Truth(1)
    async with opened(config) as (collection, writer):
        await truth.change(writer, 100)
        writing = asyncio.create_task(truth.change(writer, 200))
        await asyncio.sleep(0.05)
        milvus.kill()
        await writing
        with pytest.raises(IndexUnavailable, match="Milvus at 127"):
            await collection.search(np.ones(D, np.float32), 3)
        await truth.change(writer, 30)
        # What was written meanwhile is durable, and still to be sent.
        assert collection.store.count() == len(truth.held)
        assert await sample(collection, "landseer_milvus_requests_total", call="search", outcome="OK") == 0
    # A server that starts while Milvus is away serves what it can.
    async with opened(config) as (collection, writer):
        with pytest.raises(IndexUnavailable):
            await collection.search(np.ones(D, np.float32), 3)
        await truth.change(writer, 30)
        await asyncio.to_thread(milvus.start)
        await answering(collection)
        await truth.agrees(collection)
        await truth.change(writer, 30)
        await truth.agrees(collection)


async def sample(collection, name, **labels):
    return collection.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_vectors_that_milvus_does_not_search_are_told(config, monkeypatch):
    monkeypatch.setattr(milvus_engine, "LOOK_S", 0.0)
    truth = Truth(2)
    async with opened(config) as (collection, writer):
        await truth.change(writer, 30)
        await truth.agrees(collection)
        # As if a node were gone with some of them.
        engine = collection.index._engine
        some = np.array([key for key, _ in truth.held.values()][:5], np.int64)
        await collection.index._run(lambda: engine._collection.delete(some))
        hits = await collection.search(np.ones(D, np.float32), 300)
        there = len(truth.held)
        assert hits.lacks == f"INDEX_PARTIAL: Milvus searches {there - 5} of {there} pictures; it may have lost a node"
        assert len(hits.keys) == there - 5
        assert collection.applied == 0, "a page that follows says that something may have changed"
        # As if the store were restored to before five pictures were deleted: what stays away is sent again.
        monkeypatch.setattr(milvus_engine, "SEND_AGAIN_S", 0.0)
        while await collection.index.tend():
            pass
        await truth.agrees(collection)
        assert collection.applied == await collection.sequence()


async def test_a_store_put_back_is_sent_again_and_another_store_is_refused(config, tmp_path):
    truth, later = Truth(3), Truth(4)
    async with opened(config) as (collection, writer):
        await truth.change(writer, 40)
    shutil.copytree(config.store, tmp_path / "before")
    async with opened(config) as (collection, writer):
        later.held = dict(truth.held)
        await later.change(writer, 40)
    before = dataclasses.replace(config, store=tmp_path / "before")
    async with opened(before) as (collection, writer):
        await truth.agrees(collection)
        await truth.change(writer, 20)
        await truth.agrees(collection)
    another = dataclasses.replace(config, store=tmp_path / "another")
    with pytest.raises(StoreUnusable, match="vectors of another store"):
        async with opened(another):
            pass
    other_models = dataclasses.replace(PROFILE, weights_sha256="9" * 64)
    collection = await Collection.open(another, dataclasses.replace(PROFILE), Metrics())
    collection.profile = other_models
    with pytest.raises(StoreUnusable, match="has other vectors"):
        await collection.load()
    await asyncio.to_thread(collection.close)


async def test_a_wrong_token_and_an_unknown_authority_are_told(config, tmp_path):
    config.milvus_token.write_text("root:wrong")
    stranger = Authority(tmp_path / "stranger")
    for wrong, why in ((config, "auth"), (dataclasses.replace(config, milvus_ca=stranger.cert), "connect")):
        async with opened(wrong) as (collection, writer):
            with pytest.raises(IndexUnavailable, match=why):
                await collection.search(np.ones(D, np.float32), 3)
            with pytest.raises(NotFound):
                await writer.delete("nothing")


async def test_an_approximate_index_finds_most_with_and_without_a_filter(config, milvus):
    count, draws = 2500, np.random.default_rng(5)
    rows = draws.standard_normal((count, D))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    async with opened(dataclasses.replace(config, index="HNSW16:256")) as (collection, writer):
        await writer.put([plain_record(f"p{at}", reduced=SIZES.reduced, descriptor=row) for at, row in enumerate(rows)])
        await answering(collection)
        # Else Milvus has built none, and compares all.
        access = {"secure": True, "server_pem_path": str(config.milvus_ca), "token": PASSWORD, "seconds": 60.0}
        await asyncio.to_thread(settled, milvus.port, config.engine.rpartition("/")[2], count, **access)
        keys = np.arange(1, count + 1)
        for share in (1.0, 0.5, 0.01):
            some = draws.permutation(keys)[: int(share * count)]
            queries = draws.standard_normal((20, D)).astype(np.float32)
            selection = None if share == 1 else Selection.of(some)
            found = await asyncio.gather(*(collection.search(query, 10, selection) for query in queries))
            right = 0
            for query, hits in zip(queries, found, strict=True):
                exact = np.sort(rows[some - 1].astype(np.float64) @ query.astype(np.float64))[::-1][:10]
                right += np.count_nonzero(hits.scores >= np.float32(exact[-1]))
                assert set(hits.keys.tolist()) <= set(some.tolist())
            assert right >= 0.9 * 200, (share, right)
