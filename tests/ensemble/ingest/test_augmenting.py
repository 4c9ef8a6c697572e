from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from records import plain_record, unit_halves

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.ingest import augmenting
from landseer.ensemble.ingest.augmenting import augment_store
from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.recipe import Recipe, recipe
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.folder import SLOTS
from landseer.ensemble.store.store import Store

KILLS = int(os.environ.get("LANDSEER_KILLS", "4"))
HOW = recipe("alphaqe:5:3", positions=64)
DIMENSION, SHAPE = 32, (10, 16)


def record(number, **changes):
    fields = {"descriptor": unit_halves(DIMENSION, seed=number)}
    return plain_record(f"r{number}", reduced=SHAPE[1], **(fields | changes))


def open_store(folder, **options):
    return Store.open(folder, **{"fingerprint": "{}", "clusters_shape": SHAPE} | options)


def everything(store, *, augmented=True):
    keys, rows = zip(*store.vectors.scan(augmented=augmented), strict=True)
    return np.concatenate(keys), np.concatenate(rows)


def expected(store, how=HOW):
    _, raw = everything(store, augmented=False)
    found = augmented(raw, how.method, how.neighbours, parameter=how.parameter, threads=1)
    return found.astype(np.float16)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    opened.put_many([record(number) for number in range(100)])
    yield opened
    opened.close()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(augmenting, "BLOCK", 8)


class Stopped(Exception):
    """Stands for whatever ends a run."""


def stopped_at(store, count, how=HOW, **options):
    def progress(done):
        if done >= count:
            raise Stopped

    with pytest.raises(Stopped):
        augment_store(store, how, threads=1, progress=progress, **options)


def test_augmented_vectors_stand_beside_the_raw_ones(store):
    raw = everything(store, augmented=False)[1]
    before = store.stats()
    assert (before.augmentation, before.augmented) == (None, 0)
    np.testing.assert_array_equal(everything(store)[1], raw)
    done = augment_store(store, HOW, threads=1)
    assert (done.method, done.sequence, done.pictures, done.network) == ("alphaqe:5:3", 100, 100, "")
    keys, rows = everything(store)
    np.testing.assert_array_equal(rows, expected(store))
    np.testing.assert_array_equal(everything(store, augmented=False)[1], raw)
    np.testing.assert_array_equal(store.get("r3").record.descriptor, raw[3])
    np.testing.assert_array_equal(store.vectors.descriptors(keys[4:6], augmented=True), rows[4:6].astype(np.float32))
    assert store.by_keys([5], augmented=True)[0].record.descriptor.tobytes() == rows[4].tobytes()
    after = store.stats()
    assert (after.augmentation, after.augmented) == (done, 100)
    # Augmenting is no change of the pictures.
    assert (after.sequence, after.last_change) == (before.sequence, before.last_change)


def test_run_again_it_has_nothing_to_do(store):
    augment_store(store, HOW, threads=1)
    rows, seen = everything(store)[1], []
    augment_store(store, HOW, threads=1, progress=seen.append)
    assert seen == [100]
    np.testing.assert_array_equal(everything(store)[1], rows)


def test_an_interrupted_run_resumes_and_the_previous_augmentation_stays_in_use(store, small_blocks):
    former = augment_store(store, recipe("aqe:2", positions=64), threads=1)
    rows = everything(store)[1]
    stopped_at(store, 24)
    assert store.stats().augmentation == former and store.stats().augmented == 100
    np.testing.assert_array_equal(everything(store)[1], rows)
    seen = []
    augment_store(store, HOW, threads=1, progress=seen.append)
    assert seen[:2] == [24, 32] and seen[-1] == 100
    np.testing.assert_array_equal(everything(store)[1], expected(store))


def test_another_method_or_network_starts_over(store, small_blocks):
    stopped_at(store, 24)
    seen = []
    augment_store(store, recipe("aqe:2", positions=64), threads=1, progress=seen.append)
    assert seen[0] == 0
    attended, network = Recipe(method="lattqe", neighbours=3, parameter=0.1), []
    options = {"attention": lambda q, d: np.einsum("nd,nkd->nk", q, d)}
    stopped_at(store, 24, attended, network="a", **options)
    augment_store(store, attended, threads=1, network="b", progress=network.append, **options)
    assert network[0] == 0 and store.stats().augmentation.network == "b"


def test_a_changed_store_starts_over(store, small_blocks):
    stopped_at(store, 24)
    store.put_many([record(200)])
    seen = []
    done = augment_store(store, HOW, threads=1, progress=seen.append)
    assert seen[0] == 0 and (done.sequence, done.pictures) == (101, 101)
    np.testing.assert_array_equal(everything(store)[1], expected(store))


def test_a_change_during_the_run_ends_it(store, small_blocks):
    def progress(done):
        if done == 24:
            store.delete("r50")

    with pytest.raises(StoreUnusable, match="run the job again"):
        augment_store(store, HOW, threads=1, progress=progress)
    augment_store(store, HOW, threads=1)
    np.testing.assert_array_equal(everything(store)[1], expected(store))


def test_later_pictures_are_raw_and_deletions_delete_vectors(store, folder):
    augment_store(store, HOW, threads=1)
    rows = everything(store)[1]
    store.delete("r0")
    store.put_many([record(1, metadata={"new": "yes"}), record(300)])
    keys, now = everything(store)
    assert keys.tolist() == [*range(3, 101), 102, 103]
    np.testing.assert_array_equal(now[:-2], rows[2:])
    np.testing.assert_array_equal(now[-2:], np.stack([record(n).descriptor for n in (1, 300)]))
    stats = store.stats()
    assert (stats.pictures, stats.augmented, stats.augmentation.pictures) == (100, 98, 100)
    store.close()
    assert list(faults(folder)) == []


def test_dropped_vectors_free_their_space(store, small_blocks):
    used = store.stats().used_bytes
    augment_store(store, HOW, threads=1)
    stopped_at(store, 24, recipe("aqe:2", positions=64))
    assert store.stats().used_bytes > used
    store.augmented.drop()
    assert (store.stats().augmentation, store.stats().augmented) == (None, 0)
    assert store.stats().used_bytes <= used + 8192
    np.testing.assert_array_equal(everything(store)[1], everything(store, augmented=False)[1])


def test_the_former_vectors_make_room_for_the_new_ones(store):
    augment_store(store, HOW, threads=1)
    used = store.stats().used_bytes
    for method in ("aqe:2", "aqe:3", "dqe"):
        augment_store(store, recipe(method, positions=64), threads=1)
    assert store.stats().used_bytes == used


def test_a_full_store_raises_and_keeps_its_content(tmp_path):
    store = open_store(tmp_path / "small", limit_bytes=2**20)
    number = 0
    with pytest.raises(StoreFull):
        while True:
            store.put_many([record(number + i, thumbnail=bytes(2000)) for i in range(10)])
            number += 10
    with pytest.raises(StoreFull, match="raise the store's limit"):
        augment_store(store, HOW, threads=1)
    store.close()
    store = open_store(tmp_path / "small", limit_bytes=2**24)
    augment_store(store, HOW, threads=1)
    assert store.stats().augmented == number
    store.close()


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_to_augment(folder, count):
    store = open_store(folder)
    store.put_many([record(number) for number in range(count)])
    done = augment_store(store, HOW, threads=1)
    assert done.pictures == count
    assert [rows.tolist() for _, rows in store.vectors.scan(augmented=True)] == [
        rows.tolist() for _, rows in store.vectors.scan()
    ]
    store.close()


def test_a_store_of_an_older_release_gets_its_slots(store, folder):
    store.close()
    with lmdb.open(str(folder), max_dbs=10, map_size=2**30) as environment:
        for name in SLOTS:
            database = environment.open_db(name)
            with environment.begin(write=True) as transaction:
                transaction.drop(database, delete=True)
    assert list(faults(folder)) == []
    again = open_store(folder)
    augment_store(again, HOW, threads=1)
    assert again.stats().augmented == 100
    again.close()


def test_the_check_finds_a_truncated_vector(store, folder):
    augment_store(store, HOW, threads=1)
    store.close()
    with lmdb.open(str(folder), max_dbs=10, map_size=2**30) as environment:
        slots = [environment.open_db(name) for name in SLOTS]
        with environment.begin(write=True) as transaction:
            used = next(slot for slot in slots if transaction.stat(slot)["entries"])
            transaction.put((7).to_bytes(8, "big"), b"short", db=used)
    assert any("augmented vector 7" in fault for fault in faults(folder))


def test_any_existing_store_is_opened_but_none_is_created(store, folder, tmp_path):
    store.close()
    again = Store.open(folder, fingerprint=None)
    assert again.stats().pictures == 100
    again.close()
    (tmp_path / "empty").mkdir()
    for nowhere in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(StoreUnusable, match="no store in"):
            Store.open(nowhere, fingerprint=None)
    assert not (tmp_path / "nowhere").exists() and list((tmp_path / "empty").iterdir()) == []


# Killed at any moment.

RUN = """
    augmenting.BLOCK = 8
    store = open_store(Path(sys.argv[1]))
    def progress(done):
        sys.stdout.write(f"{done}\\n")
        sys.stdout.flush()
    augment_store(store, HOW, threads=1, progress=progress)
    store.close()
"""


def kill_a_run(folder, blocks, delay):
    """Let a process augment, kill it some blocks after it began, and return how many vectors it had done before."""
    setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from {Path(__file__).stem} import *\n"
    setup += "from landseer.ensemble.ingest import augmenting\n"
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", setup + textwrap.dedent(RUN), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths) as run:
        first = run.stdout.readline()
        for _ in range(blocks):
            run.stdout.readline()
        time.sleep(delay)
        run.kill()
        run.stdout.read()
    return int(first)


def test_killed_at_any_point_it_ends_with_the_same_bytes(folder, store):
    former = augment_store(store, recipe("aqe:2", positions=64), threads=1)
    rows, wanted = everything(store)[1], expected(store)
    store.close()
    draws, before = random.Random(3), 0
    for _ in range(KILLS):
        began = kill_a_run(folder, draws.randrange(0, 5), draws.uniform(0, 0.004))
        assert list(faults(folder)) == []
        assert began >= before
        again = open_store(folder)
        if again.stats().augmentation != former:
            np.testing.assert_array_equal(everything(again)[1], wanted)
            again.augmented.drop()
            former = augment_store(again, recipe("aqe:2", positions=64), threads=1)
            began = 0
        np.testing.assert_array_equal(everything(again)[1], rows)
        again.close()
        before = began
    again = open_store(folder)
    done = augment_store(again, HOW, threads=1)
    assert (done.method, done.sequence, done.pictures) == ("alphaqe:5:3", 100, 100)
    np.testing.assert_array_equal(everything(again)[1], wanted)
    again.close()
