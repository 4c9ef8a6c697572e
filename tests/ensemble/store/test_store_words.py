"""Visual words in the store: they belong to a codebook and a record, and are computed once."""

from __future__ import annotations

import dataclasses
import os
import random
import threading

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import writers
from records import plain_record

from landseer.ensemble.asmk.aggregate import Binary, rasmk
from landseer.ensemble.asmk.codebook import Codebook, start
from landseer.ensemble.errors import NotFound, StoreFull
from landseer.ensemble.index.deep_words import DeepWords
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.store import Store
from landseer.ensemble.store.words import pack_words, unpack_words

KILLS = int(os.environ.get("LANDSEER_KILLS", "6"))
SHAPE, SHA, D = (10, 16), "ab" * 32, 12


def features(seed, count=40):
    rows = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    return LocalFeatures(
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        positions=np.zeros((count, 2), np.float32),
        scales=np.ones(count, np.float32),
        counts=(count,),
    )


BOOK = Codebook(centroids=start(features(1000, 200).descriptors, 16))


def words_of(seed, book=BOOK):
    kept = unpack_features(pack_features(features(seed)))
    return rasmk(kept.descriptors, kept.counts, book).binarised()


def record(id, seed, **changes):
    fields = {"indexed_at": 1e9 + seed, "locals": features(seed), "words": words_of(seed)}
    return plain_record(id, reduced=SHAPE[1], **(fields | changes))


def open_store(folder, *, stamped=True, **options):
    store = Store.open(folder, fingerprint="{}", clusters_shape=SHAPE, locals_sha256=SHA, **options)
    if stamped:
        store.words.stamp(BOOK.fingerprint)
    return store


def everything(store):
    return {
        key: words for keys, found in store.words.scan(batch=3) for key, words in zip(keys.tolist(), found, strict=True)
    }


def same(one, other):
    np.testing.assert_array_equal(one.words, other.words)
    np.testing.assert_array_equal(one.codes, other.codes)
    assert one.bits == other.bits


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    yield opened
    opened.close()


@pytest.fixture
def computed(monkeypatch):
    """Counts the pictures whose words are computed."""
    counted = []

    def counting(self, features):
        counted.append(features)
        return rasmk(features.descriptors, features.counts, self._codebook).binarised()

    monkeypatch.setattr(DeepWords, "_of_picture", counting)
    return counted


async def loaded(store, book=BOOK, stop=None):
    source = DeepWords(book, store, kernel="asmk", threads=1)
    index = WordIndex(source, threads=1)
    await index.load(stop or threading.Event())
    index.close()
    source.close()
    return index


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 30), bits=st.integers(1, 130))
def test_packing_keeps_all(count, bits):
    draws = np.random.default_rng(count)
    words = np.sort(draws.choice(70_000, count, replace=False)).astype(np.int64)
    codes = draws.integers(0, 256, (count, -(-bits // 8)), dtype=np.uint8)
    one = Binary(words=words, codes=codes, bits=bits)
    same(unpack_words(pack_words(one)), one)
    assert unpack_words(pack_words(one)).words.dtype == np.int64


def test_unpacking_other_bytes_is_a_value_error():
    whole = pack_words(words_of(1))
    for other in (b"", b"x", whole[:-1], whole + b"x", b"\x00\x00" + whole):
        with pytest.raises(ValueError, match="not visual words"):
            unpack_words(other)


def test_they_come_and_go_with_their_record(store, folder):
    store.put_many([record("a", 1), record("b", 2, words=None), record("c", 3), record("d", 4), record("e", 5)])
    store.put_many([record("a", 6)])
    store.delete("d")
    found = everything(store)
    assert list(found) == [3, 5, 6] and store.words.missing() == [2]
    for key, seed in ((3, 3), (5, 5), (6, 6)):
        same(found[key], words_of(seed))
    store.words.add([2, 4], [words_of(2), words_of(4)])
    assert list(everything(store)) == [2, 3, 5, 6] and store.words.missing() == []
    store.close()
    assert list(faults(folder)) == []


def test_those_of_another_codebook_are_taken_out(store, folder):
    store.put_many([record("a", 1)])
    store.words.stamp(BOOK.fingerprint)
    assert list(everything(store)) == [1]
    store.words.stamp("another")
    assert not everything(store) and store.words.missing() == [1]
    store.close()
    assert list(faults(folder)) == []


def test_without_a_codebook_they_are_not_taken(folder):
    store = open_store(folder, stamped=False)
    with pytest.raises(ValueError, match="no stamp for visual words"):
        store.put_many([record("a", 1)])
    assert store.stats().pictures == 0
    store.close()


def test_the_check_finds_their_faults(store, folder):
    store.put_many([record("a", 1)])
    store.close()
    environment = lmdb.open(str(folder), max_dbs=10)
    with environment.begin(write=True) as transaction:
        transaction.put((7).to_bytes(8, "big"), b"odd", db=environment.open_db(b"words", txn=transaction))
    environment.close()
    found = list(faults(folder))
    assert found[0] == "visual words 7: their record is missing" and found[1].startswith("visual words 7: not visual")


# The index over them.


async def test_words_are_computed_once(store, computed):
    store.put_many([record(str(seed), seed, words=words_of(seed) if seed % 2 else None) for seed in range(10)])
    store.put_many([record("plain", 50, locals=None, words=None)])
    first = await loaded(store)
    assert len(computed) == 5 and first.stats.pictures == 10
    again = await loaded(store)
    assert len(computed) == 5 and again.stats.pictures == 10
    query = words_of(99)
    for one, other in zip((await search(first, query)), (await search(again, query)), strict=True):
        np.testing.assert_array_equal(one, other)
    # Those of another codebook are computed anew.
    other = Codebook(centroids=start(features(7, 100).descriptors, 8))
    assert (await loaded(store, other)).stats.pictures == 10 and len(computed) == 15


async def search(index, query):
    return index._file.search(query, 20)


async def test_an_interrupted_run_resumes(store, computed, monkeypatch):
    monkeypatch.setattr("landseer.ensemble.index.deep_words.BATCH", 4)
    store.put_many([record(str(seed), seed, words=None) for seed in range(10)])
    stop, compute = threading.Event(), DeepWords._computed

    def computing(self, *args):
        stop.set()
        return compute(self, *args)

    monkeypatch.setattr(DeepWords, "_computed", computing)
    assert (await loaded(store, stop=stop)).stats.pictures == 4 == len(computed)
    assert (await loaded(store)).stats.pictures == 10 and len(computed) == 10


async def test_a_store_without_room_for_them_serves_all_the_same(store, computed, monkeypatch, caplog):
    store.put_many([record(str(seed), seed, words=None) for seed in range(3)])

    def full(*args):
        raise StoreFull("it takes no more")

    monkeypatch.setattr(store.words, "add", full)
    assert (await loaded(store)).stats.pictures == 3
    assert "visual words cannot be stored and will be computed again at each start: it takes no more" in caplog.text


# Killed at any moment.

WRITTEN = """[record(id, step, words=words_of(step) if step % 3 else None) for id in (f"r{step}", f"s{step % 7}")]"""


def test_a_killed_writer_leaves_every_record_with_its_own_words(folder):
    expected, begun, draws = {}, 0, random.Random(7)
    with writers(__file__, WRITTEN) as kill_one:
        for _ in range(KILLS):
            said = kill_one(folder, begun, draws.uniform(0, 0.1))
            assert said
            for change in said:
                expected |= dict(change)
            begun += 5 * (len(said) // 5 + 2)
            assert list(faults(folder)) == []
    store = open_store(folder)
    found = everything(store)
    for id, seed in expected.items():
        try:
            stored = store.get(id)
        except NotFound:
            assert seed is None or id.startswith("r")
            continue
        written = int(stored.record.indexed_at - 1e9)
        assert written == seed or (written > seed and id.startswith("s"))
        assert (stored.key in found) == bool(written % 3)
        if stored.key in found:
            same(found[stored.key], words_of(written))
    store.close()


def test_records_without_words_are_as_before(store):
    store.put_many([dataclasses.replace(record("a", 1), words=None, locals=None)])
    assert store.words.missing() == [] and not everything(store)
