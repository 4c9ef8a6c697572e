"""A collection that is closed, or whose opening is cancelled, while its threads read the store."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from fake_triton import PROFILE

from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.store.store import Store
from landseer.ensemble.telemetry.metrics import Metrics


class SlowWords:
    """Words whose reading takes a while, on a thread that cannot be interrupted."""

    fingerprint, words, bits, kernel = "slow", 16, 64, "asmk"

    def __init__(self, store, happened):
        self._store, self._happened = store, happened
        self.began = threading.Event()

    def of_record(self, record):
        return None

    def stored(self, stop, *, after=0):
        self.began.set()
        stop.wait(5)
        time.sleep(0.3)
        self._store.stats()
        self._happened.append("read")
        yield from ()


@pytest.fixture
def config(tmp_path):
    return ServerConfig(store=tmp_path / "store", store_limit_bytes=2**24, threads=1, local_features=NONE)


async def test_the_store_is_closed_after_a_cancelled_loading_of_words_has_read_it(config, monkeypatch):
    monkeypatch.setattr(InvertedFile, "prepare", lambda _: None)
    collection, happened = await Collection.open(config, PROFILE, Metrics()), []
    close = collection.store.close
    monkeypatch.setattr(collection.store, "close", lambda: (happened.append("closed"), close()))
    words = SlowWords(collection.store, happened)
    collection.words = WordIndex(words, threads=1)
    loading = asyncio.create_task(collection.load())
    await asyncio.to_thread(words.began.wait, 5)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await asyncio.to_thread(collection.close)
    await asyncio.sleep(0.5)
    assert happened == ["read", "closed"]


async def test_a_cancelled_opening_leaves_the_store_to_others(config, monkeypatch):
    began, open_it = threading.Event(), Store.open

    def slowly(*args, **options):
        began.set()
        time.sleep(0.3)
        return open_it(*args, **options)

    monkeypatch.setattr(Store, "open", slowly)
    opening = asyncio.create_task(Collection.open(config, PROFILE, Metrics()))
    await asyncio.to_thread(began.wait, 5)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    open_it(config.store, fingerprint=PROFILE.fingerprint, clusters_shape=(4, 12)).close()
