"""Merges of a collection over a real store: what searches find, through versions, restarts, damage and failures."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from fake_triton import PROFILE
from prometheus_client import generate_latest
from records import plain_record, unit_halves

from landseer.ensemble.config import KEYPOINTS, NONE, ServerConfig
from landseer.ensemble.filters.kinds import IndexedField
from landseer.ensemble.filters.parser import parse
from landseer.ensemble.index import choosing, merging, version_room
from landseer.ensemble.index.building import build
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.merging import MergeFailed, Merger, build_in_a_process
from landseer.ensemble.index.writer import Writer
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.store.metadata import StoredMetadata
from landseer.ensemble.telemetry.metrics import Metrics

SIZES = dataclasses.replace(PROFILE.sizes, channels=16)
SMALL = dataclasses.replace(PROFILE, sizes=SIZES)
VECTORS = unit_halves(400, SIZES.channels, seed=0)


PLACES = ("Ely", "York", "Wells")


def metadata(name):
    number = name.lstrip("pqr")
    return {"place": PLACES[int(number) % 3], "n": number} if number.isdecimal() else {}


class Running:
    """A collection with its writer and its merger, and what it ought to hold."""

    def __init__(self, folder, **options):
        limits = {"store_limit_bytes": 2**26, "threads": 1, "local_features": NONE, "versions_from": 40}
        self.config = ServerConfig(store=folder, **limits | {"merge_share": 0.2} | options)
        self.held, self.made = {}, 0

    async def start(self, build=None):
        self.collection = await Collection.open(self.config, SMALL, Metrics())
        await self.collection.load()
        self.writer = Writer(self.collection)
        self.orders = []
        self.merger = Merger(self.collection, build=build or self.build, look_s=0.01, pause_s=0.01)

    async def build(self, order):
        """As the process does, on a thread: the process takes a second to start."""
        self.orders.append(order)
        await asyncio.to_thread(build, order, self.collection.store.vectors)

    async def stop(self):
        await self.writer.close()
        await self.merger.close()
        await asyncio.to_thread(self.collection.close)

    async def put(self, *names):
        vectors = [VECTORS[(self.made + place) % len(VECTORS)] for place in range(len(names))]
        self.made += len(names)
        records = [
            plain_record(name, reduced=SIZES.reduced, descriptor=row, metadata=metadata(name))
            for name, row in zip(names, vectors, strict=True)
        ]
        for change, name, row in zip(await self.writer.put(records), names, vectors, strict=True):
            self.held[name] = (change.key, row)

    async def delete(self, name):
        await self.writer.delete(name)
        del self.held[name]

    async def merged(self, count, within_s=20):
        """Wait for so many merges."""
        for _ in range(within_s * 200):
            if self.number("landseer_index_merges_total", outcome="done") >= count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"fewer than {count} merges")

    def number(self, name, **labels):
        return self.collection.metrics.registry.get_sample_value(name, labels) or 0

    async def check(self):
        """Searches find exactly what is held."""
        assert self.collection.size == len(self.held)
        keys = np.array([key for key, _ in self.held.values()], np.int64)
        order = np.argsort(keys)
        keys, rows = keys[order], np.array([row for _, row in self.held.values()])[order].astype(np.float64)
        for query in unit_halves(3, SIZES.channels, seed=self.made).astype(np.float32):
            hits = await self.collection.search(query, 30)
            scores = rows @ query.astype(np.float64)
            best = np.argsort(-scores, kind="stable")[:30]
            np.testing.assert_array_equal(hits.keys, keys[best])
            np.testing.assert_allclose(hits.scores, scores[best], rtol=1e-6)


@pytest.fixture
async def running(tmp_path):
    made = Running(tmp_path / "store")
    await made.start()
    yield made
    await made.stop()


async def test_merges_and_restarts_change_no_answer(running):
    await running.put(*(f"p{row}" for row in range(39)))
    await asyncio.sleep(0.05)
    # A small collection has no files.
    assert running.collection.index.main is None and not running.orders
    assert not running.collection.versions.folder.exists()
    await running.put("p39")
    await running.merged(1)
    index = running.collection.index
    assert (index.main.number, index.added, index.tombstones) == (1, 0, 0)
    await running.check()
    await running.put("p3", "new")  # one of them replaced
    await running.delete("p5")
    assert (index.added, index.tombstones) == (2, 2)
    await running.check()
    await running.stop()
    await running.start()
    index = running.collection.index
    assert (index.main.number, index.added, index.tombstones) == (1, 2, 2)
    await running.check()
    await running.put(*(f"p{row}" for row in range(40, 60)))
    await running.merged(1)
    await running.check()
    assert running.collection.index.main.number == 2
    assert running.number("landseer_index_version") == 2
    await running.put(*(f"p{row}" for row in range(60, 100)))
    await running.merged(2)
    await running.check()
    # The one that serves, and the one before it.
    for _ in range(100):
        if len(running.collection.versions.numbers) == 2:
            break
        await asyncio.sleep(0.01)
    numbers = running.collection.versions.numbers
    assert numbers[-1] == running.collection.versions.active and len(numbers) == 2
    assert b"landseer_index_merge_duration_seconds_count" in generate_latest(running.collection.metrics.registry)


@pytest.mark.parametrize("factory", ["PCA8,HNSW16,SQ8", "PCAR8,IVF1,PQ4x4fs,Refine(SQ8)"])
async def test_an_index_of_fewer_values_is_made_anew_for_each_version_and_mapped(tmp_path, factory):
    running = Running(tmp_path / "store", index=f"{factory}:64:6")
    await running.start()
    await running.put(*(f"p{row}" for row in range(50)))
    await running.merged(1)
    first = (running.collection.versions.folder / "versions" / "1" / "index.faiss").read_bytes()
    await running.put(*(f"q{row}" for row in range(40)))
    await running.merged(2)
    await running.check()  # exact: all are candidates
    await running.stop()
    await running.start()
    main = running.collection.index.main
    assert (main.number, main.setting.factory, main.size) == (2, factory, 90)
    second = (running.collection.versions.folder / "versions" / "2" / "index.faiss").read_bytes()
    assert second[:1000] != first[:1000]  # PCA comes first in it
    await running.check()
    await running.stop()


async def test_searches_and_changes_during_a_merge_see_everything(running):
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(order):
        begun.set()
        await go.wait()
        await Running.build(running, order)

    running.merger._build = slow
    await running.put(*(f"p{row}" for row in range(50)))
    await begun.wait()
    await running.put("p0", "p1", "late")
    await running.delete("p2")
    await running.check()
    go.set()
    await running.merged(1)
    # What changed meanwhile lies beside the new version, which never had it, or has tombstones.
    assert (running.collection.index.added, running.collection.index.tombstones) == (3, 0)
    assert running.orders[0].built.sequence == 50
    await running.check()


async def test_a_store_is_not_read_ahead_if_that_takes_the_memory_of_searches(running, monkeypatch):
    file = running.config.folder / "data.mdb"
    for merge, left in enumerate((lambda: 3 * file.stat().st_size, lambda: 2 * file.stat().st_size - 1, lambda: None)):
        monkeypatch.setattr(merging, "memory_left", left)
        await running.put(*(f"p{merge}-{row}" for row in range(60)))
        await running.merged(merge + 1)
    assert [order.read_ahead for order in running.orders] == [True, False, True]
    await running.check()


async def test_a_merge_that_fails_harms_nothing_and_is_tried_again(running, caplog):
    failures = iter([OSError(28, "No space left on device"), MergeFailed("killed"), MemoryError()])

    async def failing(order):
        for error in failures:
            raise error
        await Running.build(running, order)

    running.merger._build = failing
    await running.put(*(f"p{row}" for row in range(50)))
    await running.check()
    await running.merged(1)
    await running.check()
    assert running.number("landseer_index_merges_total", outcome="failed") == 3
    assert "No space left on device" in caplog.text and "the present one serves on" in caplog.text
    assert [path.name for path in running.collection.versions.folder.glob("building-*")] == []


async def test_a_merge_is_given_up_when_the_index_is_rebuilt_or_the_server_stops(running):
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(order):
        begun.set()
        await go.wait()
        await Running.build(running, order)

    running.merger._build = slow
    await running.put(*(f"p{row}" for row in range(50)))
    await begun.wait()
    await running.collection.load()
    await running.put("x")
    go.set()
    await running.merged(1)
    await running.check()
    begun.clear(), go.clear()
    await running.put(*(f"q{row}" for row in range(30)))
    await begun.wait()
    await running.stop()
    await running.start()
    await running.check()


async def test_a_server_that_stops_while_a_version_is_published_leaves_it_whole(running, monkeypatch):
    begun, go, publish = threading.Event(), threading.Event(), running.collection.versions.publish
    monkeypatch.setattr(
        running.collection.versions, "publish", lambda folder: (begun.set(), go.wait(10), publish(folder))[2]
    )
    await running.put(*(f"p{row}" for row in range(50)))
    assert await asyncio.to_thread(begun.wait, 10)
    threading.Timer(0.1, go.set).start()
    await running.stop()
    await running.start(lambda order: asyncio.Event().wait())
    assert running.collection.index.main.number == 1 and running.number("landseer_index_damaged_versions_total") == 0
    await running.check()


async def test_a_version_waits_for_disk_and_memory(running, monkeypatch, caplog):
    free = {"disk": 0, "memory": 2**60}
    monkeypatch.setattr(version_room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free["disk"]))
    monkeypatch.setattr(version_room, "memory_left", lambda: free["memory"])
    await running.put(*(f"p{row}" for row in range(50)))
    await failed(running, 1)
    assert "no room for a version beside" in caplog.text and not running.orders
    free |= {"disk": 2**60, "memory": 2**28}
    await failed(running, running.number("landseer_index_merges_total", outcome="failed") + 2)
    assert "no memory to build a version: about 0.25 GiB" in caplog.text and not running.orders
    free |= {"memory": 2**60}
    await running.merged(1)
    await running.check()


async def failed(running, count):
    """Wait for so many merges that failed."""
    for _ in range(4000):
        if running.number("landseer_index_merges_total", outcome="failed") >= count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"fewer than {count} failures")


async def test_a_collection_that_shrank_has_its_damaged_version_replaced(running):
    await running.put(*(f"p{row}" for row in range(50)))
    await running.merged(1)
    for row in range(45):
        await running.delete(f"p{row}")
    # It is replaced until few changes lie beside it, and not after each few from then on.
    while running.merger._due():
        await running.merged(running.number("landseer_index_merges_total", outcome="done") + 1)
    number = running.collection.index.main.number
    await running.merged(number)
    done = running.number("landseer_index_merges_total", outcome="done")
    assert number == done, "versions and merges are counted alike, and none is half done"
    running.merger._distrusted = number
    await running.merged(done + 1)
    assert running.collection.index.main.number > number
    await running.check()


async def test_words_are_saved_when_enough_of_them_changed(running):
    await running.put(*(f"p{row}" for row in range(30)))
    saved = []
    words = SimpleNamespace(changed=100, stats=SimpleNamespace(pictures=400, bytes=1), close=lambda: None, apply=None)

    def save():
        saved.append(words.changed)
        words.changed = 0
        return SimpleNamespace(number=1, manifest=SimpleNamespace(size=400))

    running.collection.word_files = SimpleNamespace(save=save, versions=running.collection.versions)
    running.collection.words = words
    await asyncio.sleep(0.05)
    assert not saved  # a small collection
    running.collection.words = None
    await running.put(*(f"q{row}" for row in range(30)))
    running.collection.words = words
    await running.merged(2)
    assert saved == [100]
    words.changed = 80  # no more than the share
    await asyncio.sleep(0.05)
    assert saved == [100]
    running.collection.words = None


@pytest.fixture
async def fielded(tmp_path, monkeypatch):
    """A running collection with two indexed fields; what it reads from the store for them is counted."""
    read = []
    scan = StoredMetadata.scan

    def counted(self, **how):
        for keys, metadata in scan(self, **how):
            read.extend(keys.tolist())
            yield keys, metadata

    monkeypatch.setattr(StoredMetadata, "scan", counted)
    fields = (IndexedField(name="place", kind="text"), IndexedField(name="n", kind="number"))
    made = Running(tmp_path / "store", index_fields=fields)
    await made.start()
    yield made, read
    await made.stop()


async def restarted(running, read, **options):
    """Start again, and return which pictures were read for the fields."""
    await running.stop()
    running.config = dataclasses.replace(running.config, **options)
    read.clear()
    await running.start(lambda order: asyncio.Event().wait())
    return list(read)


async def check_filters(running):
    """Filters let through what is held. The name p7 stands for the place and the number of 7."""
    for text, wanted in {
        "place = Ely": lambda n: n % 3 == 0,
        "place:e AND n > 10": lambda n: n % 3 == 2 and n > 10,
        "n:*": lambda n: True,
    }.items():
        found = await running.collection.fields.select(parse(text))
        keys = np.flatnonzero(found.selection.now().allowed)
        held = sorted(key for name, (key, _) in running.held.items() if wanted(int(name[1:])))
        assert [key for key in keys.tolist() if key in {key for key, _ in running.held.values()}] == held
        assert found.matched == len(held)


async def saved(running):
    """Wait until the fields are in files, and return the folder of their versions."""
    versions = running.collection.field_files.versions
    for _ in range(4000):
        if versions.active is not None and not running.collection.fields.changed:
            return versions.folder / "versions"
        await asyncio.sleep(0.005)
    raise AssertionError("the fields were not written")


async def test_indexed_fields_are_read_from_files_and_only_changes_from_the_store(fielded):
    running, read = fielded
    await running.put(*(f"p{row}" for row in range(50)))
    await saved(running)
    await running.put("p3", "p60")
    await running.delete("p5")
    await check_filters(running)
    assert await restarted(running, read) == [51, 52]
    await check_filters(running)
    # After `activate` or `rollback` of the vectors, too.
    await running.stop()
    await running.start()
    await running.put(*(f"p{row}" for row in range(61, 80)))
    await saved(running)
    await running.merged(2)
    await running.delete("p7")
    numbers = running.collection.versions.numbers
    await running.stop()
    running.collection.versions.activate(numbers[0])
    read.clear()
    await running.start(lambda order: asyncio.Event().wait())
    assert running.collection.index.main.number == numbers[0] and read == []
    await check_filters(running)
    # Other fields are read from the store.
    assert len(await restarted(running, read, index_fields=running.config.index_fields[:1])) == len(running.held)


@pytest.mark.parametrize("harmed", ["1/keys.npy", "1/0.npy", "1/1.txt", "1/manifest.json", "1"])
async def test_damaged_files_of_fields_are_noticed_and_read_from_the_store(fielded, harmed, caplog):
    running, read = fielded
    await running.put(*(f"p{row}" for row in range(50)))
    path = await saved(running) / harmed
    if path.is_dir():
        shutil.rmtree(path)
    else:
        flip(path, -10)
    assert await restarted(running, read) == [*range(1, 51)]
    await check_filters(running)
    if path.suffix:
        assert "index version 1 is damaged and is deleted" in caplog.text
        assert running.number("landseer_index_damaged_versions_total") == 1


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(bytes(data))


def harm_file(folder):
    flip(folder / "index.faiss")


def harm_end(folder):
    (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:-1])


def harm_manifest(folder):
    flip(folder / "manifest.json", 40)


def harm_half(folder):
    (folder / "keys.npy").unlink()


@pytest.mark.parametrize("harm", [harm_file, harm_end, harm_manifest, harm_half])
async def test_a_damaged_version_is_noticed_and_another_or_none_serves(running, harm, caplog):
    await running.put(*(f"p{row}" for row in range(50)))
    await running.merged(1)
    await running.put(*(f"q{row}" for row in range(30)))
    await running.merged(2)
    versions = running.collection.versions
    for left in ([1], []):
        await running.stop()
        harm(versions.folder / "versions" / str(versions.active))
        caplog.clear()
        await running.start(lambda order: asyncio.Event().wait())
        await running.check()
        assert versions.numbers == left and "is damaged and is deleted" in caplog.text
        main = running.collection.index.main
        assert [main.number] == left if main else not left
        assert running.number("landseer_index_damaged_versions_total") == 1


async def test_damage_that_is_found_late_is_replaced_by_a_new_version(running, monkeypatch, caplog):
    monkeypatch.setattr(choosing, "CHECKED_AT_ONCE", 0)
    await running.put(*(f"p{row}" for row in range(50)))
    await running.merged(1)
    await running.stop()
    harm_file(running.collection.versions.folder / "versions" / "1")
    await running.start()
    assert running.collection.index.main.number == 1
    await running.check()  # scored by the store
    await running.merged(1)
    await running.check()
    assert running.collection.versions.unchecked is None or running.collection.versions.unchecked == 1
    assert "index version 1 is damaged" in caplog.text
    # What served unchecked when its process ended is checked before it serves again.
    await running.stop()
    versions = running.collection.versions
    versions.mark_unchecked(versions.active)
    harm_file(versions.folder / "versions" / str(versions.active))
    await running.start(lambda order: asyncio.Event().wait())
    assert running.collection.index.main is None
    await running.check()


def keypoints(seed):
    draws = np.random.default_rng(seed)
    return CompactKeypoints(
        words=draws.integers(1000, size=20),
        codes=draws.integers(256, size=(20, 16)).astype(np.uint8),
        positions=np.zeros((20, 2), np.float32),
        sizes=np.ones(20, np.float32),
        angles=np.zeros(20, np.float32),
        frame=(640, 480),
    )


@pytest.fixture
async def wordy(tmp_path):
    """A collection of fifty pictures with words, in files."""
    made = Running(tmp_path / "store", local_features=KEYPOINTS)
    await made.start()
    records = [
        plain_record(f"p{row}", reduced=SIZES.reduced, descriptor=VECTORS[row], keypoints=keypoints(row))
        for row in range(50)
    ]
    await made.writer.put(records)
    await made.merged(2)
    yield made
    await made.stop()


async def found_by_words(running):
    words = running.collection.words
    hits = [await words.search(keypoints(row).searched(), 5) for row in range(50)]
    return [(one.keys.tolist(), one.scores.tolist()) for one in hits]


async def test_damage_of_words_that_is_found_late_is_mended_from_the_store(wordy, monkeypatch, caplog):
    monkeypatch.setattr(choosing, "CHECKED_AT_ONCE", 0)
    versions, whole = wordy.collection.word_files.versions, await found_by_words(wordy)
    assert versions.numbers == [1]
    await wordy.stop()
    files = versions.folder / "versions" / "1"
    codes = np.load(files / "0-codes.npy")
    np.save(files / "0-codes.npy", ~codes)
    await wordy.start(lambda order: asyncio.Event().wait())
    # The words serve before they are checked, then come from the store, then from a new version.
    await wordy.merged(1)
    assert "index version 1 is damaged and is deleted" in caplog.text
    assert wordy.number("landseer_index_damaged_versions_total") == 1
    assert versions.numbers == [2] and versions.unchecked != 2
    assert await found_by_words(wordy) == whole
    await wordy.stop()
    # What is whole is checked once, and stays.
    await wordy.start(lambda order: asyncio.Event().wait())
    for _ in range(1000):
        if versions.unchecked is None:
            break
        await asyncio.sleep(0.005)
    assert (versions.active, versions.unchecked) == (2, None)
    assert await found_by_words(wordy) == whole


async def test_changes_wait_while_words_are_loaded_anew(wordy):
    async with wordy.collection._changing_words:
        change = asyncio.create_task(
            wordy.writer.put(
                [plain_record("q", reduced=SIZES.reduced, descriptor=VECTORS[60], keypoints=keypoints(99))]
            )
        )
        await asyncio.sleep(0.05)
        assert not change.done()
    [put] = await change
    await wordy.collection.reload_words()
    hits = await wordy.collection.words.search(keypoints(99).searched(), 1)
    assert hits.keys.tolist() == [put.key]


async def test_a_store_put_back_from_a_backup_uses_no_version_of_its_lost_future(running, tmp_path):
    await running.put(*(f"p{row}" for row in range(45)))
    await running.merged(1)
    await running.stop()
    shutil.copy(tmp_path / "store" / "data.mdb", tmp_path / "backup.mdb")
    held = dict(running.held)
    await running.start()
    await running.put(*(f"q{row}" for row in range(30)))
    await running.merged(1)
    assert running.collection.versions.active == 2
    await running.stop()
    shutil.copy(tmp_path / "backup.mdb", tmp_path / "store" / "data.mdb")
    running.held = held
    await running.start(lambda order: asyncio.Event().wait())
    # The same keys as in version 2, for other pictures.
    await running.put(*(f"r{row}" for row in range(30)))
    await running.check()
    assert running.collection.index.main.number == 1


async def test_versions_of_other_vectors_are_not_used(running):
    await running.put(*(f"p{row}" for row in range(45)))
    await running.merged(1)
    store = running.collection.store
    job = store.augmented.begin("alphaqe:1:3")
    for keys, vectors in store.vectors.scan():
        store.augmented.put(job, keys, vectors[::-1])
    store.augmented.finish(job)
    await running.stop()
    running.config = dataclasses.replace(running.config, vectors="augmented")
    rows = [row for _, row in running.held.values()][::-1]
    running.held = {name: (key, row) for (name, (key, _)), row in zip(running.held.items(), rows, strict=True)}
    await running.start()
    assert running.collection.index.main is None
    await running.check()
    await running.merged(1)
    await running.check()
    assert running.collection.versions.active == 2


async def test_a_version_is_built_in_a_process_of_its_own_while_the_store_is_served(tmp_path):
    running = Running(tmp_path / "store")
    await running.start(build_in_a_process)
    await running.put(*(f"p{row}" for row in range(50)))
    await running.merged(1, within_s=60)
    await running.check()
    # One that fails says why.
    collection = running.collection
    order = merging.BuildOrder(
        store=str(tmp_path / "store"),
        folder=str(tmp_path / "missing"),
        token="t",
        built=collection.opener.state(),
        augmented=False,
        setting=collection.setting(50),
        dimension=SIZES.channels,
        expected=50,
    )
    with pytest.raises(MergeFailed, match=r"ended with 1: .*missing"):
        await build_in_a_process(order)
    await running.stop()
