"""Who asks the models for patches, and what is stored of them."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import time

import numpy as np
import pytest
from fake_triton import PROFILE, SIZES
from grpc.aio import AioRpcError
from PIL import Image
from plain import NOT_RERANKED, PLAIN
from prints import cover

from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.inference.contracts import PATCH_BITS, PATCH_OUTPUTS
from landseer.v1 import index_pb2, search_pb2

PATCHED = dataclasses.replace(
    PROFILE, long_side=400, sizes=dataclasses.replace(SIZES, patches=300), patches_sha256="3" * 64
)
"""Models with patches."""
COATTENTION = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION)


def having(sha256):
    """Return the profile of models with patches of that hash, or without any."""
    sizes = dataclasses.replace(SIZES, patches=300 if sha256 else 0)
    return dataclasses.replace(PATCHED, sizes=sizes, patches_sha256=sha256)


def encoded(seed):
    file = io.BytesIO()
    Image.fromarray(cover(seed)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def covers():
    return {f"c{seed}": encoded(seed) for seed in range(3)}


@pytest.fixture(autouse=True)
def patched(fake_triton):
    fake_triton.profile = PATCHED


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


async def asked(landseer, **fields):
    """Search, and return the model that described the query and the patch outputs asked of it."""
    before = len(landseer.triton.calls)
    assert not (await search(landseer, **fields)).degradations
    [call] = [call for call in landseer.triton.calls[before:] if call.model.startswith("describe")]
    return call.model, set(call.outputs) & set(PATCH_OUTPUTS)


async def stored(landseer, id):
    """Return the patches in the store."""
    collection = landseer.server._readiness.collection()
    return await collection.patches((await collection.get(id)).key)


async def test_indexing_stores_what_the_models_found(start, covers):
    landseer = await start()
    await landseer.put(**covers)
    for call in landseer.triton.calls:
        assert call.model == "describe_full" and set(PATCH_OUTPUTS) <= set(call.outputs)
    found = [await stored(landseer, id) for id in covers]
    height, width = landseer.triton.calls[-1].shapes["image"][1:3]
    for patches in found:
        assert len(patches) == 300 and patches.codes.shape == (300, PATCH_BITS // 8)
        assert patches.frame == (width, height)
        np.testing.assert_array_equal(patches.positions % 16, 8)
        assert (patches.positions < (width, height)).all()
        np.testing.assert_allclose(patches.sizes, 16)
    assert not np.array_equal(found[0].codes, found[1].codes)


async def test_a_stream_stores_them_and_a_replacement_replaces_them(start, covers):
    landseer = await start()
    await landseer.put(a=covers["c0"])
    first = (await stored(landseer, "a")).codes

    async def requests():
        yield index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id="a", image=covers["c1"]))
        yield index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id="b", image=covers["c0"]))

    await landseer.index.UpsertMany(requests())
    assert not np.array_equal((await stored(landseer, "a")).codes, first)
    np.testing.assert_array_equal((await stored(landseer, "b")).codes, first)


async def test_a_search_asks_for_them_only_to_verify(start, covers):
    landseer = await start()
    await landseer.put(**covers)
    query, every = covers["c1"], set(PATCH_OUTPUTS)
    assert await asked(landseer, image=query) == ("describe", every)
    assert await asked(landseer, image=query, explain=True) == ("describe_full", every)
    assert await asked(landseer, image=query, region={"width": 200, "height": 200}) == ("describe", every)
    for fields in (
        PLAIN,
        PLAIN | {"first_stage": search_pb2.FIRST_STAGE_WORDS},
        {"reranking": NOT_RERANKED},
        {"reranking": COATTENTION},
    ):
        assert await asked(landseer, image=query, **fields) == ("describe", set())
    calls = len(landseer.triton.calls)
    assert not (await search(landseer, id="c1")).degradations
    assert len(landseer.triton.calls) == calls, "those of an indexed picture are in the store"


async def test_describing_a_picture_does_not_ask_for_them(start, covers):
    landseer = await start()
    await landseer.search.Describe(search_pb2.DescribeRequest(image=covers["c0"]))
    assert not set(landseer.triton.calls[-1].outputs) & set(PATCH_OUTPUTS)


async def test_models_without_them_are_not_asked(start, covers, fake_triton):
    fake_triton.profile = having("")
    landseer = await start()
    await landseer.put(**covers)
    assert not any(set(call.outputs) & set(PATCH_OUTPUTS) for call in landseer.triton.calls)
    assert await stored(landseer, "c0") is None
    assert await asked(landseer, image=covers["c1"]) == ("describe", set())
    assert (await search(landseer, image=covers["c1"])).hits[0].id == "c1"


@pytest.mark.parametrize("kept", ["none", "deep"])
async def test_a_server_without_keypoints_has_none_either(start, covers, kept):
    landseer = await start(local_features=kept)
    await landseer.put(**covers)
    assert not any(set(call.outputs) & set(PATCH_OUTPUTS) for call in landseer.triton.calls)
    assert await stored(landseer, "c0") is None
    spatial = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_SPATIAL)
    fields = {"reranking": spatial} if kept == "deep" else {}
    assert (await asked(landseer, image=covers["c1"], **fields))[1] == set()


async def test_with_both_they_are_stored_beside_deep_local_features(start, covers):
    landseer = await start(local_features="both")
    await landseer.put(**covers)
    assert len(await stored(landseer, "c0")) == 300
    assert await asked(landseer, image=covers["c1"]) == ("describe", set(PATCH_OUTPUTS))


async def test_patches_of_other_models_are_not_served(start, covers, fake_triton):
    landseer = await start()
    await landseer.put(**covers)
    await landseer.server.stop(0.0)
    fake_triton.profile = having("4" * 64)
    refused = await start(wait=False)
    with pytest.raises(ProfileMismatch, match="333333333333 in the store, 444444444444 served"):
        await refused.server.ready(60.0)
    await refused.server.stop(0.0)
    # Without keypoints it is, for patches shape no other vector.
    again = await start(local_features="none")
    assert (await search(again, image=covers["c2"])).hits[0].id == "c2"


@pytest.mark.parametrize(
    ("before", "after", "told", "mend"),
    [
        (
            "3" * 64,
            "4" * 64,
            "(SHA-256 333333333333) than Triton now serves (444444444444)",
            "again with another --store",
        ),
        ("3" * 64, "", "(SHA-256 333333333333) than Triton now serves (none)", "start the server again"),
        ("", "3" * 64, "(SHA-256 none) than Triton now serves (333333333333)", "start the server again"),
    ],
)
async def test_models_that_change_the_patches_meanwhile_are_refused(
    start, covers, fake_triton, rich, before, after, told, mend
):
    fake_triton.profile = having(before)
    landseer = await start()
    await landseer.put(**covers)
    fake_triton.profile = having(after)
    end = time.monotonic() + 30
    while await landseer.serving() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    with pytest.raises(AioRpcError) as caught:
        await search(landseer, image=covers["c1"])
    found = rich(caught.value)
    assert found.reason == "PROFILE_MISMATCH" and found.message.endswith(mend)
    assert f"the patches were made by other models {told}" in found.message
    if "--store" in mend:
        return
    await landseer.server.stop(0.0)
    again = await start()
    assert (await search(again, image=covers["c1"])).hits[0].id == "c1"
    await again.put(new=covers["c2"])
    assert (await stored(again, "new") is None) == (not after)
