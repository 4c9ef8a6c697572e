from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.ingest.augmenting import augment_store
from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.methods import classical
from landseer.ensemble.search.expansion.recipe import recipe
from landseer.ensemble.store.store import Store
from landseer.v1 import index_pb2, search_pb2

HOW = recipe("alphaqe:3:2", positions=64)
COUNT = 12


@pytest.fixture
async def filled(start, config, picture):
    """The store of a stopped orchestrator with twelve pictures; their descriptors by id."""
    landseer = await start()
    await landseer.put(**{f"p{seed}": picture(seed, noise=40.0) for seed in range(COUNT)})
    await landseer.server.stop(0.0)
    return config.store


def augment(folder):
    store = Store.open(folder, fingerprint=None)
    done = augment_store(store, HOW, threads=1)
    keys, raw = next(store.vectors.scan())
    ids = [stored.record.id for stored in store.by_keys(keys.tolist(), vectors=False)]
    store.close()
    rows = augmented(raw, HOW.method, HOW.neighbours, parameter=HOW.parameter, threads=1)
    vectors = rows.astype(np.float16).astype(np.float32)
    return done, dict(zip(ids, vectors, strict=True)), dict(zip(ids, raw.astype(np.float32), strict=True))


async def stats(landseer):
    return await landseer.index.Stats(index_pb2.StatsRequest())


async def search(landseer, vector, **options):
    query = search_pb2.Descriptor(values=vector.tolist())
    return (await landseer.search.Search(search_pb2.SearchRequest(descriptor=query, top_k=COUNT, **options))).hits


async def test_raw_vectors_are_searched_unless_told_otherwise(filled, start):
    _, vectors, raw = await asyncio.to_thread(augment, filled)
    landseer = await start()
    assert (await stats(landseer)).searched_vectors == index_pb2.SearchedVectors()
    hits = await search(landseer, raw["p3"])
    assert hits[0].id == "p3"
    for hit in hits:
        assert hit.score == pytest.approx(raw[hit.id] @ raw["p3"], abs=1e-5)
    assert any(abs(vectors[hit.id] @ raw["p3"] - hit.score) > 1e-3 for hit in hits)


async def test_augmented_vectors_are_searched_and_the_stats_say_so(filled, start):
    done, vectors, raw = await asyncio.to_thread(augment, filled)
    landseer = await start(vectors="augmented")
    expected = index_pb2.SearchedVectors(augmentation="alphaqe:3:2", sequence=done.sequence)
    assert (await stats(landseer)).searched_vectors == expected
    hits = await search(landseer, raw["p3"])
    assert sorted(hit.id for hit in hits) == sorted(vectors)
    for hit in hits:
        assert hit.score == pytest.approx(vectors[hit.id] @ raw["p3"], abs=1e-5)
    # What is shown of a picture is its own descriptor still.
    got = await landseer.index.Get(index_pb2.GetRequest(id="p3", include_vectors=True))
    np.testing.assert_array_equal(np.array(got.descriptor, np.float32), raw["p3"])


async def test_expansion_is_over_augmented_neighbours(filled, start):
    _, vectors, raw = await asyncio.to_thread(augment, filled)
    landseer = await start(vectors="augmented")
    first = await search(landseer, raw["p3"])
    neighbours = np.stack([vectors[hit.id] for hit in first[:2]])
    query = classical("aqe", raw["p3"], neighbours, alpha=3.0, lowest=neighbours[:0])
    expansion = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_AQE, neighbours=2)
    hits = await search(landseer, raw["p3"], expansion=expansion)
    for hit in hits:
        assert hit.score == pytest.approx(vectors[hit.id] @ query, abs=1e-5)
        assert getattr(hit.scores, "global") == pytest.approx(vectors[hit.id] @ raw["p3"], abs=1e-5)


async def test_pictures_that_came_since_are_raw_and_counted(filled, start, picture, caplog):
    done, _, _ = await asyncio.to_thread(augment, filled)
    landseer = await start(vectors="augmented")
    await landseer.put(new=picture(99), p0=picture(100))
    await landseer.index.Delete(index_pb2.DeleteRequest(id="p1"))
    told = (await stats(landseer)).searched_vectors
    assert (told.not_augmented, told.removed, told.sequence) == (2, 2, done.sequence)
    got = await landseer.index.Get(index_pb2.GetRequest(id="new", include_vectors=True))
    hits = await search(landseer, np.array(got.descriptor))
    assert hits[0].id == "new" and hits[0].score == pytest.approx(1, abs=1e-3)
    await landseer.server.stop(0.0)
    with caplog.at_level(logging.WARNING):
        again = await start(vectors="augmented")
    assert "2 pictures were added, which are searched by their raw vectors, and 2 were deleted" in caplog.text
    assert (await stats(again)).searched_vectors == told
    assert (await search(again, np.array(got.descriptor)))[0].id == "new"


async def test_without_augmented_vectors_it_does_not_serve_them(filled, start):
    landseer = await start(wait=False, vectors="augmented")
    with pytest.raises(StoreUnusable, match="landseer augment"):
        await landseer.server.ready(60.0)


def test_other_vectors_are_refused(config):
    import dataclasses

    with pytest.raises(ValueError, match="raw or augmented"):
        dataclasses.replace(config, vectors="both")
