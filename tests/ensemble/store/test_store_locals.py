"""Local features in the store: precision, stamps, and kills."""

from __future__ import annotations

import os
import random

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import writers
from records import plain_record, unit_halves

from landseer.ensemble.errors import NotFound, ProfileMismatch, StoreFull, StoreUnusable
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.local_features import LocalFeatures, of_tensors, pack_features, unpack_features
from landseer.ensemble.store.store import Store

KILLS = int(os.environ.get("LANDSEER_KILLS", "10"))
SHAPE, SHA = (10, 16), "ab" * 32


def features(seed=0, *, count=30, dimension=16, regions=()):
    draws, count = np.random.default_rng(seed), count + sum(regions)
    rows = draws.standard_normal((count, dimension)).astype(np.float32)
    return LocalFeatures(
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        positions=draws.uniform(0, 640, (count, 2)).astype(np.float32),
        scales=2.0 ** draws.integers(-4, 2, count).astype(np.float32) / np.float32(np.sqrt(2)),
        counts=(count - sum(regions), *regions),
    )


def record(id="a", seed=0, **changes):
    fields = {"descriptor": unit_halves(8, seed=seed), "indexed_at": 1e9 + seed, "locals": features(seed)}
    return plain_record(id, reduced=SHAPE[1], **(fields | changes))


def open_store(folder, **options):
    return Store.open(folder, **{"fingerprint": "{}", "clusters_shape": SHAPE, "locals_sha256": SHA} | options)


def alike(found, wanted):
    """Whether features equal those that were written, up to rounding."""
    assert found.counts == wanted.counts
    assert found.descriptors.dtype == found.positions.dtype == found.scales.dtype == np.float32
    np.testing.assert_allclose(found.descriptors, wanted.descriptors, atol=0.006)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.positions, wanted.positions, atol=1 / 64 + 1e-6)
    np.testing.assert_allclose(found.scales, wanted.scales, rtol=2**-11)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    yield opened
    opened.close()


# The bytes.


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), dimension=st.integers(1, 130), regions=st.lists(st.integers(0, 20), max_size=3))
def test_packing_keeps_all_but_rounding(count, dimension, regions):
    one = features(count, count=count, dimension=dimension, regions=tuple(regions))
    alike(unpack_features(pack_features(one)), one)
    assert len(unpack_features(pack_features(one)).whole.descriptors) == count


@given(data=st.binary(max_size=60), cut=st.integers(1, 300))
def test_unpacking_other_bytes_is_a_value_error(data, cut):
    whole = pack_features(features(count=3))
    for other in (data[:7], whole[:-cut], whole + b"x", b"\x10\x00\x01\x00\xff\xff\xff\xff" + data):
        with pytest.raises(ValueError, match="not local features"):
            unpack_features(other)


def test_bytes_of_a_picture():
    assert len(pack_features(features(count=500, dimension=128))) == 67_012


def test_rounded_descriptors_keep_their_angles():
    one, other = (features(seed, count=500, dimension=128) for seed in range(2))
    kept, others = (unpack_features(pack_features(each)).descriptors for each in (one, other))
    assert np.abs(kept @ others.T - one.descriptors @ other.descriptors.T).max() < 0.005
    assert (kept * one.descriptors).sum(axis=1).min() > 0.9999


def test_padding_is_left_out():
    tensors = {
        "local_descriptors": np.eye(6, 4, dtype=np.float16),
        "local_count": np.array([3], np.int32),
        "local_positions": np.arange(12, dtype=np.float32).reshape(6, 2),
        "local_scales": np.ones(6, np.float32),
    }
    found = of_tensors(tensors)
    assert found.counts == (3,) and found.descriptors.dtype == np.float32
    np.testing.assert_array_equal(found.descriptors, np.eye(3, 4))
    np.testing.assert_array_equal(found.positions[-1], [4, 5])


def test_a_descriptor_of_zeros_stays_one():
    flat = LocalFeatures(
        descriptors=np.zeros((2, 4), np.float32),
        positions=np.zeros((2, 2), np.float32),
        scales=np.ones(2, np.float32),
        counts=(2,),
    )
    assert not unpack_features(pack_features(flat)).descriptors.any()


def test_features_that_are_no_numbers_are_refused(store):
    bad = features()
    bad.descriptors[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        store.put_many([record("fine"), record("bad", locals=bad)])
    assert store.stats().pictures == 0


def test_arrays_that_do_not_belong_together_are_refused():
    one = features()
    with pytest.raises(ValueError, match="29 features"):
        LocalFeatures(descriptors=one.descriptors, positions=one.positions, scales=one.scales, counts=(29,))


# In the store.


def test_they_come_back_by_key_and_in_turn(store):
    store.put_many([record("a", 1), record("b", 2, locals=None), record("c", 3)])
    found = store.locals.read([3, 2, 99, 1])
    assert found[1] is None and found[2] is None
    alike(found[0], features(3))
    alike(found[3], features(1))
    for batch in (1, 2, 64):
        batches = list(store.locals.scan(batch=batch))
        assert [key for keys, _ in batches for key in keys.tolist()] == [1, 3]
        alike(batches[0][1][0], features(1))
    assert [keys.tolist() for keys, _ in store.locals.scan(after=1)] == [[3]]
    stats = store.stats()
    assert (stats.pictures, stats.locals) == (3, 2)
    assert 0 < stats.locals_bytes < stats.used_bytes


def test_they_go_with_their_record(store, folder):
    store.put_many([record("a", 1), record("b", 2)])
    store.put_many([record("a", 3)])
    assert store.locals.read([1]) == [None]
    alike(store.locals.read([3])[0], features(3))
    store.put_many([record("a", 4, locals=None)])
    store.delete("b")
    assert store.locals.read([1, 2, 3, 4]) == [None] * 4
    assert store.stats().locals == 0
    store.close()
    assert list(faults(folder)) == []


def test_without_being_asked_for_they_are_not_taken(folder):
    store = open_store(folder, locals_sha256=None)
    with pytest.raises(ValueError, match="no stamp for local features"):
        store.put_many([record()])
    store.put_many([record(locals=None)])
    assert store.locals.sha256 == "" and list(store.locals.scan()) == []
    store.close()


def test_a_store_without_them_takes_them_from_then_on(folder):
    store = open_store(folder, locals_sha256=None)
    store.put_many([record("old", 1, locals=None)])
    store.close()
    store = open_store(folder)
    store.put_many([record("new", 2)])
    found = store.locals.read([1, 2])
    assert found[0] is None and found[1] is not None
    assert store.locals.sha256 == SHA
    store.close()


def test_those_of_other_models_are_refused(folder, store):
    store.put_many([record()])
    store.close()
    with pytest.raises(ProfileMismatch, match=r"abababababab in the store, cdcdcdcdcdcd served.*without --local"):
        open_store(folder, locals_sha256="cd" * 32)
    with pytest.raises(ProfileMismatch, match="export them again"):
        open_store(folder, locals_sha256="")
    # Everything else still works, and once none is left another may come.
    again = open_store(folder, locals_sha256=None)
    again.put_many([record(locals=None)])
    again.close()
    other = open_store(folder, locals_sha256="cd" * 32)
    other.put_many([record("b")])
    assert other.locals.sha256 == "cd" * 32
    other.close()


def test_a_full_store_opens(folder):
    store = open_store(folder, limit_bytes=2**20, locals_sha256=None)
    with pytest.raises(StoreFull):
        for number in range(1000):
            store.put_many([record(f"p{number}", thumbnail=bytes(9000), locals=None)])
    store.close()
    store = open_store(folder, limit_bytes=2**20)
    assert store.locals.sha256 == ""
    store.close()


def test_a_store_of_an_older_release_is_sound(folder):
    store = open_store(folder, locals_sha256=None)
    store.put_many([record(locals=None)])
    store.close()
    environment = lmdb.open(str(folder), max_dbs=10)
    with environment.begin(write=True) as transaction:
        transaction.drop(environment.open_db(b"locals", txn=transaction))
    environment.close()
    assert list(faults(folder)) == []
    again = open_store(folder)
    again.put_many([record("b")])
    assert again.stats().locals == 1
    again.close()


def test_the_check_finds_their_faults(folder, store):
    store.put_many([record("a"), record("b")])
    store.close()
    environment = lmdb.open(str(folder), max_dbs=10)
    with environment.begin(write=True) as transaction:
        database = environment.open_db(b"locals", txn=transaction)
        transaction.put((2).to_bytes(8, "big"), b"nonsense", db=database)
        transaction.put((9).to_bytes(8, "big"), pack_features(features()), db=database)
    environment.close()
    found = list(faults(folder))
    assert any(fault.startswith("local features 2: not local features") for fault in found)
    assert "local features 9: their record is missing" in found
    again = open_store(folder)
    with pytest.raises(StoreUnusable, match="local features of record 2"):
        again.locals.read([2])
    again.close()


# Killed at any moment.

WRITTEN = """[
    record(id, seed=step, locals=features(step, count=80) if step % 3 else None)
    for id in (f"r{step}", f"s{draws.randrange(20)}")
]"""


def test_a_killed_writer_leaves_every_record_with_its_own_features(folder):
    expected, start, draws = {}, 0, random.Random(7)
    with writers(__file__, WRITTEN) as kill_one:
        for _ in range(KILLS):
            said = kill_one(folder, start, draws.uniform(0, 0.1))
            assert said
            for change in said:
                expected |= dict(change)
            start += 5 * (len(said) // 5 + 2)
            assert list(faults(folder)) == []
    store = open_store(folder)
    for id, seed in expected.items():
        check_survivor(store, id, seed)
    store.close()


def check_survivor(store, id, seed):
    """Its features are those of the change that wrote it, which was acknowledged or was the last one."""
    try:
        found = store.get(id)
    except NotFound:
        assert seed is None or id.startswith("r")
        return
    written = int(found.record.indexed_at - 1e9)
    assert written == seed or (written > seed and id.startswith("s"))
    [there] = store.locals.read([found.key])
    assert (there is not None) == bool(written % 3)
    if there is not None:
        alike(there, features(written, count=80))
