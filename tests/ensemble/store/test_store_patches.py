"""Patches in the store: with their record, and with the models that make them."""

from __future__ import annotations

import lmdb
import numpy as np
import pytest
from records import plain_record

from landseer.ensemble.errors import ProfileMismatch, StoreUnusable
from landseer.ensemble.keypoints.patches import BITS, BYTES, Patches, pack_patches
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.store import Store

SHAPE, MODELS = (10, 16), "00112233aabbccdd" * 4


def patches(seed, count=40):
    draws = np.random.default_rng(seed)
    return Patches(
        codes=draws.integers(0, 256, (count, BITS // 8), dtype=np.uint8),
        positions=draws.integers(0, 640, (count, 2)).astype(np.float32),
        sizes=np.exp2(draws.integers(4, 7, count)).astype(np.float32),
        frame=(640, 480),
    )


def record(id, seed, **changes):
    return plain_record(id, reduced=SHAPE[1], **({"patches": patches(seed)} | changes))


def open_store(folder, models=MODELS):
    return Store.open(folder, fingerprint="{}", clusters_shape=SHAPE, patches_sha256=models)


def same(found, wanted):
    assert pack_patches(found) == pack_patches(wanted)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    yield opened
    opened.close()


def test_they_come_and_go_with_their_record(store, folder):
    store.put_many([record("a", 1), record("b", 2, patches=None), record("c", 3), record("d", 4)])
    store.put_many([record("a", 5)])
    store.delete("c")
    found = store.patches.read([1, 2, 3, 4, 5, 99])
    assert [one is not None for one in found] == [False, False, False, True, True, False]
    same(found[3], patches(4))
    same(found[4], patches(5))
    assert [keys.tolist() for keys, _ in store.patches.scan(batch=1)] == [[4], [5]]
    store.close()
    assert list(faults(folder)) == []


def test_a_picture_without_any_patch_is_kept_as_such(store):
    store.put_many([record("blank", 1, patches=patches(1, 0))])
    [found] = store.patches.read([1])
    assert len(found) == 0 and found.frame == (640, 480)


def test_they_outlive_the_process(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    again = open_store(folder)
    same(again.patches.read([1])[0], patches(1))
    assert again.patches.made_by == MODELS
    again.close()


def test_those_of_other_models_are_refused(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    with pytest.raises(ProfileMismatch) as caught:
        open_store(folder, "another" * 9)
    said = str(caught.value)
    assert str(folder) in said and MODELS[:12] in said and "anotheranoth served" in said
    assert "--local-features none" in said and "index the pictures again" in said
    # Without patches the store is served, and with its own models again.
    for models in (None, MODELS):
        opened = open_store(folder, models)
        assert len(opened.patches.read([1])[0]) == 40
        opened.close()


def test_the_stamp_means_nothing_while_there_are_none(store, folder):
    store.put_many([record("a", 1)])
    store.delete("a")
    assert store.patches.made_by == ""
    store.close()
    other = open_store(folder, "another")
    other.put_many([record("b", 2)])
    assert other.patches.made_by == "another"
    other.close()


def test_without_a_stamp_they_are_not_taken(folder):
    store = open_store(folder, None)
    with pytest.raises(ValueError, match="no stamp for patches"):
        store.put_many([record("a", 1)])
    assert store.stats().pictures == 0
    store.put_many([record("a", 1, patches=None)])
    store.close()


def test_damaged_ones_are_named_by_the_store_and_by_its_check(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    environment = lmdb.open(str(folder), max_dbs=20)
    with environment.begin(write=True) as transaction:
        database = environment.open_db(b"patches", txn=transaction)
        transaction.put((1).to_bytes(8, "big"), pack_patches(patches(1))[:-1], db=database)
        transaction.put((7).to_bytes(8, "big"), pack_patches(patches(7)), db=database)
    environment.close()
    size = 6 + 40 * BYTES
    found = list(faults(folder))
    assert found[0] == f"patches 1: not patches: {size - 1} bytes instead of {size} for 40"
    assert found[1:] == ["patches 7: their record is missing"]
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match=rf"is damaged: patches of record 1: not patches: {size - 1} bytes"):
        store.patches.read([1])
    store.close()
