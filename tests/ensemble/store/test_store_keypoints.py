"""Keypoints in the store: with their record, and with the codebook of their words."""

from __future__ import annotations

import dataclasses

import lmdb
import numpy as np
import pytest
from records import plain_record

from landseer.ensemble.errors import ProfileMismatch, StoreUnusable
from landseer.ensemble.index.keypoint_words import KeypointWords
from landseer.ensemble.keypoints.compact import BYTES, CompactKeypoints, aggregated, pack_keypoints
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.store import Store

SHAPE, BOOK = (10, 16), "00112233aabbccdd"


def keypoints(seed, count=40):
    draws = np.random.default_rng(seed)
    return CompactKeypoints(
        words=draws.integers(0, 16_384, count),
        codes=draws.integers(0, 256, (count, 16), dtype=np.uint8),
        positions=draws.integers(0, 640, (count, 2)).astype(np.float32),
        sizes=np.exp2(draws.integers(0, 6, count)).astype(np.float32),
        angles=np.zeros(count, np.float32),
        frame=(640, 480),
    )


def record(id, seed, **changes):
    return plain_record(id, reduced=SHAPE[1], **({"keypoints": keypoints(seed)} | changes))


def open_store(folder, codebook=BOOK):
    return Store.open(folder, fingerprint="{}", clusters_shape=SHAPE, codebook=codebook)


def same(found, wanted):
    assert pack_keypoints(found) == pack_keypoints(wanted)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    yield opened
    opened.close()


def test_they_come_and_go_with_their_record(store, folder):
    store.put_many([record("a", 1), record("b", 2, keypoints=None), record("c", 3), record("d", 4)])
    store.put_many([record("a", 5)])
    store.delete("c")
    found = store.keypoints.read([1, 2, 3, 4, 5, 99])
    assert [one is not None for one in found] == [False, False, False, True, True, False]
    same(found[3], keypoints(4))
    same(found[4], keypoints(5))
    assert [keys.tolist() for keys, _ in store.keypoints.scan(batch=1)] == [[4], [5]]
    told = store.stats()
    assert (told.pictures, told.keypoints) == (3, 2) and told.keypoints_bytes >= 2 * 40 * BYTES
    assert told.locals == 0
    store.close()
    assert list(faults(folder)) == []


def test_a_picture_without_any_keypoint_is_kept_as_such(store):
    store.put_many([record("blank", 1, keypoints=keypoints(1, 0))])
    [found] = store.keypoints.read([1])
    assert len(found) == 0 and found.frame == (640, 480)


def test_they_outlive_the_process(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    again = open_store(folder)
    same(again.keypoints.read([1])[0], keypoints(1))
    assert again.keypoints.made_by == BOOK
    again.close()


def test_those_with_words_of_another_codebook_are_refused(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    with pytest.raises(ProfileMismatch) as caught:
        open_store(folder, "another")
    said = str(caught.value)
    assert str(folder) in said and BOOK in said and "the server now has another" in said
    assert "--local-features none" in said and "index the pictures again" in said
    # Without keypoints the store is served, and with its own codebook again.
    for codebook in (None, BOOK):
        opened = open_store(folder, codebook)
        assert opened.stats().keypoints == 1
        opened.close()


def test_the_stamp_means_nothing_while_there_are_none(store, folder):
    store.put_many([record("a", 1)])
    store.delete("a")
    assert store.keypoints.made_by == ""
    store.close()
    other = open_store(folder, "another")
    other.put_many([record("b", 2)])
    assert other.keypoints.made_by == "another"
    other.close()


def test_without_a_codebook_they_are_not_taken(folder):
    store = open_store(folder, None)
    with pytest.raises(ValueError, match="no stamp for keypoints"):
        store.put_many([record("a", 1)])
    assert store.stats().pictures == 0
    store.put_many([record("a", 1, keypoints=None)])
    store.close()


def test_words_that_two_bytes_cannot_hold_change_nothing(store):
    large = dataclasses.replace(keypoints(1), words=np.full(40, 70_000))
    with pytest.raises(ValueError, match="use a smaller codebook"):
        store.put_many([record("fine", 2), record("large", 1, keypoints=large)])
    assert store.stats().pictures == 0


def test_damaged_ones_are_named_by_the_store_and_by_its_check(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    environment = lmdb.open(str(folder), max_dbs=12)
    with environment.begin(write=True) as transaction:
        database = environment.open_db(b"keypoints", txn=transaction)
        transaction.put((1).to_bytes(8, "big"), pack_keypoints(keypoints(1))[:-1], db=database)
        transaction.put((7).to_bytes(8, "big"), pack_keypoints(keypoints(7)), db=database)
    environment.close()
    found = list(faults(folder))
    assert found[0] == "keypoints 1: not keypoints: 965 bytes instead of 966 for 40"
    assert found[1:] == ["keypoints 7: their record is missing"]
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match=r"is damaged: keypoints of record 1: not keypoints: 965 bytes"):
        store.keypoints.read([1])
    store.close()


def test_the_words_of_a_store_are_those_of_its_keypoints(store):
    from threading import Event

    from landseer.ensemble.asmk.codebook import Codebook

    store.put_many([record("a", 1), record("plain", 9, keypoints=None), record("b", 2)])
    book = Codebook(centroids=np.ones((3, 128), np.float32))
    source = KeypointWords(book, store.keypoints, kernel="how-idf")
    assert (source.words, source.bits, source.fingerprint) == (3, 128, book.fingerprint)
    [(keys, pictures)] = list(source.stored(Event()))
    assert keys.tolist() == [1, 3]
    for seed, found in zip((1, 2), pictures, strict=True):
        wanted = aggregated(keypoints(seed).words, keypoints(seed).codes)
        for one in (found, source.of_record(record("x", seed))):
            np.testing.assert_array_equal(one.words, wanted.words)
            np.testing.assert_array_equal(one.codes, wanted.codes)
    assert source.of_record(record("plain", 1, keypoints=None)) is None
    stop = Event()
    stop.set()
    assert list(source.stored(stop)) == []
