"""Two orchestrators over one PostgreSQL and one Milvus, both real: writing and reading at once, and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter

import milvus_server
import numpy as np
import pytest
from fake_triton import SIZES
from killing import names_of
from milvus_truth import D, Truth, answering, opened
from postgres_server import running
from records import plain_record

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.errors import NotFound, StoreUnavailable, StoreUnusable
from landseer.ensemble.index import milvus_collection
from landseer.ensemble.postgres_address import postgres_address

pytestmark = pytest.mark.stack
KILLS = int(os.environ.get("LANDSEER_KILLS", "5"))
DELAY_S = 2.0
"""After which another server finds what one has written: docs/scale.md."""
IDS = 40
"""Ids that both processes write, so that they replace and delete each other's pictures."""


@pytest.fixture(scope="module")
def milvus(tmp_path_factory):
    # The processes that are killed leave it little time.
    with milvus_server.running(tmp_path_factory.mktemp("milvus"), session_s=15) as server:
        yield server


@pytest.fixture(scope="module")
def postgres():
    with running() as found:
        yield found


@pytest.fixture
def config(postgres, milvus, request, monkeypatch):
    patient(monkeypatch.setattr)
    name = re.sub(r"\W", "_", request.node.name)[:60]
    return config_of(postgres.create(name), f"milvus://127.0.0.1:{milvus.port}/{name}")


def patient(setattr):
    """A busy machine is no fault."""
    for limit in ("CONNECT_S", "SEARCH_S", "WRITE_S", "LOAD_S"):
        setattr(milvus_collection, limit, 30.0)


def config_of(url, engine):
    return ServerConfig(store=postgres_address(url), engine=engine, index="Flat", local_features=NONE, threads=1)


def name_of(config):
    """Return the name of a database."""
    return str(config.store).rpartition("/")[2]


async def soon(one, other):
    """Wait until a collection has followed another."""
    until = time.monotonic() + 10 * DELAY_S
    while one.applied < other.applied:
        assert time.monotonic() < until, (one.applied, other.applied)
        await asyncio.sleep(0.02)


async def back(collection):
    """Use the database until it answers: connections that were lost are noticed when they are used."""
    for _ in range(3):
        with contextlib.suppress(StoreUnavailable):
            await collection.sequence()
            return
    raise AssertionError("the database is not back")


async def test_each_finds_what_brute_force_finds_whoever_wrote_it(config, postgres, milvus):
    truth = Truth(0)
    async with opened(config) as (one, writes_one), opened(config) as (other, writes_other):
        for _ in range(3):
            await truth.change(writes_one, 30)
            # Its own writes at once, the other's soon.
            await truth.agrees(one)
            await soon(other, one)
            await truth.agrees(other)
            await truth.change(writes_other, 30)
            await truth.agrees(other)
            await soon(one, other)
        # Both go on after either server was away, and nothing is lost.
        postgres.stop()
        with pytest.raises(StoreUnavailable):
            await truth.change(writes_one, 30)
        postgres.start()
        for collection in (one, other):
            await back(collection)
        milvus.kill()
        await truth.change(writes_other, 10)
        await asyncio.to_thread(milvus.start)
        for collection in (one, other):
            await answering(collection)
        await truth.change(writes_one, 10)
        await soon(other, one)
        for collection in (one, other):
            await truth.agrees(collection)
    async with opened(config) as (one, _):
        await truth.agrees(one)


async def test_a_store_put_back_is_sent_again_and_another_store_is_refused(config, postgres):
    truth, later = Truth(1), Truth(2)
    async with opened(config) as (_, writer):
        await truth.change(writer, 40)
    before = config_of(postgres.create("before", template=name_of(config)), config.engine)
    async with opened(config) as (_, writer):
        later.held = dict(truth.held)
        await later.change(writer, 40)
    async with opened(before) as (one, writer), opened(before) as (other, _):
        for collection in (one, other):
            await answering(collection)
            await truth.agrees(collection)
        await truth.change(writer, 20)
        await soon(other, one)
        for collection in (one, other):
            await truth.agrees(collection)
    another = config_of(postgres.create("another"), config.engine)
    with pytest.raises(StoreUnusable, match="vectors of another store"):
        async with opened(another):
            pass
    # A second collection for the same store is filled from it.
    async with opened(config_of(before.store.url, f"{config.engine}_2")) as (collection, _):
        await answering(collection)
        await truth.agrees(collection)


# Killed at any moment.


async def live(url, engine, name, life):
    """Write and delete until killed, and print what is tried, what was acknowledged, and whatever is wrong."""
    patient(setattr)
    draws = np.random.default_rng([zlib.crc32(name.encode()), life])
    async with opened(config_of(url, engine)) as (collection, writer):
        await answering(collection)
        for step in range(10**6):
            tag = f"{name}-{life}-{step}"
            ids = [f"p{number}" for number in draws.integers(0, IDS, int(draws.integers(1, 7)))]
            if step % 4 == 3:
                say(tried=ids[:1])
                with contextlib.suppress(NotFound):
                    change = await writer.delete(ids[0])
                    say(done=[[ids[0], change.key, None]])
                continue
            say(tried=ids)
            rows = draws.standard_normal((len(ids), D))
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
            made = [
                plain_record(id, reduced=SIZES.reduced, descriptor=row, metadata={"by": tag})
                for id, row in zip(ids, rows, strict=True)
            ]
            changes = await writer.put(made)
            say(done=[[id, change.key, tag] for id, change in zip(ids, changes, strict=True)])
            await look(collection, made[-1], changes[-1].key)


async def look(collection, record, key):
    """Say whether a search finds a picture that was just written, unless somebody replaced it, and no picture twice."""
    hits = await collection.search(record.descriptor.astype(np.float32), 10)
    pictures = await collection.pictures(hits.keys, thumbnails=False, vectors=False)
    twice = [id for id, count in Counter(one.record.id for one in pictures if one is not None).items() if count > 1]
    there = (await collection.pictures(np.array([key]), thumbnails=False, vectors=False))[0]
    say(looked=hits.lacks or "whole")
    if twice or (there is not None and key not in hits.keys and not hits.lacks):
        say(wrong=f"{record.id} under {key}: found {hits.keys.tolist()}, twice {twice}")


def say(**what):
    print(json.dumps(what), flush=True)


LIVES = """
import asyncio, os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    said, *arguments = json.loads(line)
    life = os.fork()
    if life == 0:
        sys.stdout = open(said, "w")
        try:
            asyncio.run(live(*arguments))
        except BaseException as error:
            say(wrong=repr(error))
        os._exit(1)
    print(life, flush=True)
"""


class Lives:
    """Processes that live until they are killed: forks of one that has imported all, which takes longer than a life."""

    def __init__(self, folder, config):
        self._folder, self._config, self._number = folder, config, 0
        command = [sys.executable, "-c", names_of(__file__) + LIVES]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = []

    def begin(self, name):
        """Begin a life; return its process, and the file with what it says."""
        self._number += 1
        said = self._folder / f"{name}-{self._number}"
        arguments = [str(said), self._config.store.url, self._config.engine, name, self._number]
        self._parent.stdin.write(json.dumps(arguments) + "\n")
        self._parent.stdin.flush()
        process = int(self._parent.stdout.readline())
        self.said.append(said)
        return process, said

    def close(self):
        self._parent.kill()
        self._parent.wait()


def lines_of(said):
    """Return what a life has said so far, in whole lines."""
    text = said.read_text() if said.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


async def writing(said, seconds=90.0):
    """Wait until a life has written something."""
    until = time.monotonic() + seconds
    while not any("done" in one for one in lines_of(said)):
        assert time.monotonic() < until and not any("wrong" in one for one in lines_of(said)), lines_of(said)
        await asyncio.sleep(0.02)


async def test_a_process_killed_at_any_moment_loses_nothing_and_leaves_nothing_twice(config, tmp_path):
    lives, draws = Lives(tmp_path, config), random.Random(KILLS)
    running = {}
    try:
        for name in ("one", "other"):
            running[name] = lives.begin(name)
        for _ in range(KILLS):
            for _, said in running.values():
                await writing(said)
            await asyncio.sleep(draws.uniform(0.0, 1.0))
            name = draws.choice(sorted(running))
            os.kill(running[name][0], signal.SIGKILL)
            running[name] = lives.begin(name)
        for process, said in running.values():
            await writing(said)
            os.kill(process, signal.SIGKILL)
    finally:
        lives.close()
    said = {one.name: lines_of(one) for one in lives.said}
    assert not [line for lines in said.values() for line in lines if "wrong" in line]
    done = [change for lines in said.values() for line in lines for change in line.get("done", ())]
    numbers = [number for _, number, _ in done]
    assert len(numbers) == len(set(numbers)) > 10 * KILLS
    async with opened(config) as (collection, _), opened(config) as (another, _):
        await answering(collection)
        await answering(another)
        await survived(collection, said, done)
        await all_found_once(collection)
        await all_found_once(another)
    looked = Counter(line["looked"] for lines in said.values() for line in lines if "looked" in line)
    print(f"{KILLS} kills, {len(done)} acknowledged changes, searches: {dict(looked)}")


async def survived(collection, said, done):
    """Require the store to hold what was acknowledged last, or what was tried later and not acknowledged."""
    last = {}
    for id, number, tag in sorted(done, key=lambda change: change[1]):
        last[id] = (number, tag)
    # Each life that was killed may have written the last thing that it tried.
    perhaps = {}
    for name, lines in said.items():
        if lines and "tried" in lines[-1]:
            perhaps |= {id: (*perhaps.get(id, ()), name) for id in lines[-1]["tried"]}
    for id in {*last, *perhaps}:
        number, tag = last.get(id, (0, None))
        try:
            found = await collection.get(id)
        except NotFound:
            assert tag is None or id in perhaps, f"{id} of {tag} is lost"
            continue
        if found.key == number:
            assert found.record.metadata["by"] == tag
        else:
            life = found.record.metadata["by"].rpartition("-")[0]
            assert found.key > number and life in perhaps.get(id, ()), f"{id}: {found.key}, acknowledged was {number}"


async def all_found_once(collection):
    """Require a search for more than all to find every picture of the store, and none twice; Milvus has no other."""
    keys, ids = collection.store.metadata.ids()
    assert len(set(ids)) == len(ids) == collection.store.count() == collection.size
    hits = await collection.search(np.ones(D, np.float32), 1000)
    assert sorted(hits.keys.tolist()) == sorted(keys.tolist()) and not hits.lacks
    engine = collection.index._engine
    assert await collection.index._run(engine._collection.count) == len(ids)
