"""What a collection tells of single pictures, over a real store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_triton import PROFILE
from records import plain_record, unit_halves

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.filters.kinds import IndexedField
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.verify.nearest import nearest
from landseer.ensemble.verify.shared_words import compare

SIZES = dataclasses.replace(PROFILE.sizes, patches=8)
MAKES_PATCHES = dataclasses.replace(PROFILE, sizes=SIZES, patches_sha256="3" * 64)
VECTORS = unit_halves(3, SIZES.channels, seed=0)


def record(row, **changes):
    return plain_record(f"p{row}", reduced=SIZES.reduced, **({"descriptor": VECTORS[row]} | changes))


@pytest.fixture
def opened(tmp_path):
    """Opens a collection of three pictures."""
    made = []

    async def open(**options):
        config = ServerConfig(store=tmp_path / "store", store_limit_bytes=2**24, threads=1, **options)
        made.append(await Collection.open(config, MAKES_PATCHES, Metrics()))
        return made[-1]

    yield open
    for one in made:
        one.close()


async def test_cosines_are_those_with_the_stored_vectors(opened):
    collection = await opened(local_features=NONE)
    collection.store.put_many([record(row) for row in range(3)])
    query = unit_halves(1, SIZES.channels, seed=7)[0].astype(np.float32)
    found = await collection.cosines(query, np.array([3, 1]))
    np.testing.assert_allclose(found, VECTORS[[2, 0]].astype(np.float32) @ query, rtol=1e-6)
    assert found.dtype == np.float32


async def test_deleted_pictures_have_no_cosine(opened):
    collection = await opened(local_features=NONE)
    collection.store.put_many([record(row) for row in range(3)])
    collection.store.delete("p1")
    query = VECTORS[0].astype(np.float32)
    found = await collection.cosines(query, np.array([2, 1, 99]))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])
    assert found[1] == pytest.approx(1.0, abs=1e-3)
    assert np.isnan(await collection.cosines(query, np.array([2, 99]))).all()
    assert (await collection.cosines(query, np.empty(0, np.int64))).shape == (0,)


async def test_patches_are_those_of_the_store(opened):
    collection = await opened()
    some = Patches(
        codes=np.arange(32, dtype=np.uint8).reshape(2, 16),
        positions=np.array([[1, 2], [3, 4]], np.float32),
        sizes=np.array([16, 32], np.float32),
        frame=(40, 30),
    )
    collection.store.put_many([record(0, patches=some), record(1)])
    assert collection.sources.patches and collection.store.patches.made_by == MAKES_PATCHES.patches_sha256
    await collection.load()
    found = await collection.patches(1)
    assert found is not None
    np.testing.assert_array_equal(found.codes, some.codes)
    assert await collection.patches(2) is None and await collection.patches(99) is None


@pytest.mark.parametrize(("options", "compiled"), [({}, 1), ({"local_features": NONE}, 0)])
async def test_what_verifies_is_compiled_at_the_start(opened, options, compiled):
    collection = await opened(**options)
    for loop in (nearest, compare):
        loop.cache_clear()
    await collection.load()
    assert [loop.cache_info().currsize for loop in (nearest, compare)] == [compiled, compiled]


async def test_a_bad_index_setting_is_noticed_at_the_start_of_a_small_store(opened, tmp_path):
    with pytest.raises(ValueError, match="FAISS cannot make the index 'Flatt'"):
        await opened(local_features=NONE, index="Flatt")
    # It was closed: it can be opened again.
    assert (await opened(local_features=NONE)).size == 0


async def test_filters_know_a_picture_before_it_is_found_and_until_it_is_not(opened, monkeypatch):
    collection = await opened(local_features=NONE, index_fields=(IndexedField(name="place", kind="text"),))
    await collection.load()
    calls = []

    async def indexed(keys, vectors, removed):
        calls.append("index")

    async def add(added, records):
        calls.append(("add", added))

    async def remove(removed):
        calls.append(("remove", removed))

    monkeypatch.setattr(collection.index, "apply", indexed)
    monkeypatch.setattr(collection.fields, "add", add)
    monkeypatch.setattr(collection.fields, "remove", remove)
    await collection.apply([2], VECTORS[:1].astype(np.float32), [record(0)], [1], 2)
    assert calls == [("add", [2]), "index", ("remove", [1])] and collection.applied == 2
