"""What does not fit in memory is refused at the start, with the arithmetic."""

from __future__ import annotations

import logging
import re
from functools import partial

import numpy as np
import pytest
from fake_triton import PROFILE

from landseer.ensemble.config import KEYPOINTS, NONE, ServerConfig
from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.index import footprint
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.columns import Columns
from landseer.ensemble.index.field_footprint import fields_bytes
from landseer.ensemble.index.footprint import KEYPOINT_WORDS_BYTES, Footprint, check_memory
from landseer.ensemble.memory import GIB
from landseer.ensemble.store.record import StoreStats
from landseer.ensemble.telemetry.metrics import Metrics


def stats(pictures, *, each=70_656, limit=16 * GIB):
    used = pictures * each
    return StoreStats(pictures=pictures, sequence=pictures, used_bytes=used, limit_bytes=limit, last_change=None)


def check(found, there, monkeypatch, *, local=KEYPOINTS):
    monkeypatch.setattr(footprint, "memory_limit", lambda: int(there * GIB))
    words = KEYPOINT_WORDS_BYTES if local == KEYPOINTS else 0
    check_memory(found, ServerConfig(store="pictures", local_features=local), 1280, words_bytes=words)


def test_a_store_that_does_not_fit_is_refused(monkeypatch):
    with pytest.raises(StoreUnusable) as caught:
        check(stats(280_000), 3.5, monkeypatch)
    assert str(caught.value) == (
        "pictures does not fit in memory: 280,000 vectors of 1,280 x 4 bytes + 8,240 bytes each for visual words + "
        "0.2 GiB for the rest = 3.7 GiB, and this process may take 3.5 GiB; raise the container's memory limit, "
        "put the vectors in files with `landseer index-versions build pictures`, or serve it with "
        "`--local-features none`, or split the collection over several servers"
    )
    check(stats(280_000), 3.5, monkeypatch, local=NONE)


def test_indexed_fields_count(monkeypatch):
    kinds = {"path": "text", "year": "number", "place": "text"}
    metadata = [{"path": f"/photos/2019/{n:07}.jpg", "year": "1990", "place": f"place {n % 20}"} for n in range(20_000)]
    # A sample tells texts that all differ from those of which there are few.
    each = partial(fields_bytes, kinds, metadata[::20])
    columns = Columns(kinds)
    columns.add(np.arange(20_000), metadata)
    assert columns.total_bytes / 20_000 == pytest.approx(each(20_000), rel=0.25)
    assert each(10**6) == pytest.approx(150 + 24 + 2 * 25, abs=4)
    assert fields_bytes({}, metadata, 10**6) == 0
    monkeypatch.setattr(footprint, "memory_limit", lambda: GIB)
    config = ServerConfig(store="pictures", local_features=NONE)
    with pytest.raises(StoreUnusable) as caught:
        check_memory(stats(10**7), config, 1280, words_bytes=0, in_files=10**7, fields=each)
    said = r"0 vectors of 1,280 x 4 bytes \+ 10,000,000 times 22\d bytes for fields \+ 0.2 GiB for the rest = 2.\d GiB"
    assert re.search(said, str(caught.value)) and "index fewer fields (--index-field), or split" in str(caught.value)
    check_memory(stats(10**6), config, 1280, words_bytes=0, in_files=10**6, fields=each)


@pytest.mark.parametrize(
    ("found", "there", "warned"),
    [
        # A tenth of 243,000 pictures is in memory, and the rest in files.
        (stats(0), 1.25, True),
        (stats(0), 1.35, False),
        (stats(0, limit=8 * GIB), 1.25, False),
        # As its own pictures are: half as large as those measured, so twice as many fit the limit.
        (stats(10_000, each=35_328), 1.35, True),
    ],
)
def test_a_store_that_may_grow_beyond_memory_is_warned_of(monkeypatch, caplog, found, there, warned):
    with caplog.at_level(logging.WARNING):
        check(found, there, monkeypatch)
    assert bool(caplog.records) == warned


def test_the_measured_million():
    """docs/indexing.md: 4.97 GiB for a million pictures by global descriptors alone."""
    found = Footprint(pictures=1_000_000, dimension=1280, words_bytes=0, rest_bytes=footprint.PROCESS_BYTES)
    assert found.bytes / GIB == pytest.approx(4.97, abs=0.01)


async def test_a_server_with_too_little_memory_does_not_open_its_store(monkeypatch, tmp_path):
    config = ServerConfig(store=tmp_path / "store", store_limit_bytes=2**24, threads=1, local_features=NONE)
    monkeypatch.setattr(footprint, "memory_limit", lambda: GIB // 8)
    with pytest.raises(StoreUnusable, match="does not fit in memory"):
        await Collection.open(config, PROFILE, Metrics())
    monkeypatch.undo()
    # It was closed again.
    (await Collection.open(config, PROFILE, Metrics())).close()
