"""Near-identical hits are one hit, end to end."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from fake_triton import PROFILE
from grpc.aio import AioRpcError
from PIL import Image
from plain import PLAIN
from prints import camera, cover, photographed

from landseer.ensemble.errors import Overloaded
from landseer.ensemble.search.grouping import compared
from landseer.ensemble.verify.keypoint_verifier import KeypointVerifier
from landseer.v1 import index_pb2, search_pb2

GROUPED = {"group_by": search_pb2.GROUPING_NEAR_IDENTICAL}
COVERS = 4
COPIES = {"c1", "c1-small", "c1-jpeg", "c1-cut"}


def encoded(pixels, how="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, how, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def large(fake_triton):
    """The models' input is as large as a cover: keypoints need pixels."""
    fake_triton.profile = dataclasses.replace(PROFILE, long_side=400)


@pytest.fixture(scope="module")
def pictures():
    """Covers, copies of c1, and another photograph of it."""
    c1 = cover(1)
    return {f"c{seed}": encoded(cover(seed)) for seed in range(COVERS)} | {
        "c1-small": encoded(np.asarray(Image.fromarray(c1).resize((300, 225)))),
        "c1-jpeg": encoded(c1, "JPEG", quality=30),
        "c1-cut": encoded(c1[12:-12, 16:-16]),
        "c1-tilted": encoded(photographed(c1, camera(turn=6, tilt=0.1))),
    }


@pytest.fixture
async def shop(start, pictures):
    landseer = await start()
    await landseer.put(**pictures)
    return landseer


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


def groups(answer):
    return {hit.id: set(hit.near_identical) for hit in answer.hits}


async def test_copies_are_one_hit_with_the_ids_of_the_others(shop, pictures):
    plain, answer = await search(shop, image=pictures["c1"]), await search(shop, image=pictures["c1"], **GROUPED)
    assert not answer.degradations and set(groups(plain)) == set(pictures)
    found, order, first = groups(answer), [hit.id for hit in plain.hits], answer.hits[0]
    # The best stands for the group; the others follow in the order of the hits, as do the hits.
    assert first.id == order[0] and {first.id, *first.near_identical} == COPIES
    assert list(first.near_identical) == sorted(first.near_identical, key=order.index)
    # Another photograph of the same cover is a hit of its own, as is everything else.
    assert found == {first.id: COPIES - {first.id}, "c1-tilted": set(), "c0": set(), "c2": set(), "c3": set()}
    assert [hit.id for hit in answer.hits] == sorted(found, key=order.index)
    assert not any(hit.near_identical for hit in plain.hits)
    assert [timing.stage for timing in answer.timings][-5:] == ["rerank", "via", "group", "store", "total"]


async def test_top_k_counts_groups(shop, pictures):
    answer = await search(shop, image=pictures["c1"], top_k=2, **GROUPED)
    first, second = answer.hits
    assert {first.id, *first.near_identical} == COPIES and (second.id, len(second.near_identical)) == ("c1-tilted", 0)
    plain = await search(shop, image=pictures["c1"], top_k=2)
    assert len(plain.hits) == 2 and not plain.hits[0].near_identical


async def test_every_kind_of_query_and_order_is_grouped(shop, pictures):
    vector = (await shop.index.Get(index_pb2.GetRequest(id="c1", include_vectors=True))).descriptor
    for query in ({"image": pictures["c1"], **PLAIN}, {"descriptor": {"values": vector}}):
        found = groups(await search(shop, **query, **GROUPED))
        assert [{id, *others} for id, others in found.items() if others] == [COPIES]
    # The query itself is not among the others.
    found = groups(await search(shop, id="c1", **GROUPED))
    assert sorted(len(others) for others in found.values()) == [0, 0, 0, 0, 2]
    assert "c1" not in {*found, *set().union(*found.values())}


async def test_named_none_nothing_is_grouped(shop, pictures):
    answer = await search(shop, image=pictures["c1"], group_by=search_pb2.GROUPING_NONE)
    assert len(answer.hits) == len(pictures) and "group" not in {timing.stage for timing in answer.timings}


async def test_if_grouping_fails_hits_are_not_grouped_and_the_answer_says_so(shop, pictures, monkeypatch):
    async def busy(self, key, keys):
        raise Overloaded("256 tasks already wait; try again later")

    monkeypatch.setattr(KeypointVerifier, "near_identical", busy)
    answer = await search(shop, image=pictures["c1"], top_k=3, **GROUPED)
    [skipped] = answer.degradations
    assert (skipped.stage, skipped.reason[:10]) == ("group", "OVERLOADED")
    assert len(answer.hits) == 3 and not any(hit.near_identical for hit in answer.hits)


async def test_a_server_without_keypoints_refuses_and_says_what_to_do(start, pictures, rich):
    landseer = await start(local_features="none")
    with pytest.raises(AioRpcError) as caught:
        await search(landseer, image=pictures["c1"], **GROUPED)
    told = rich(caught.value)
    assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "LOCAL_FEATURES_MISSING")
    assert told.message.startswith("group_by: ") and "--local-features keypoints" in told.message


async def test_pictures_without_keypoints_stay_alone(start, pictures):
    landseer = await start(local_features="none")
    await landseer.put(**pictures)
    await landseer.server.stop(0.0)
    answer = await search(await start(), image=pictures["c1"], **GROUPED)
    assert len(answer.hits) == len(pictures) and not any(hit.near_identical for hit in answer.hits)


@pytest.mark.parametrize(
    ("top_k", "most", "expected"), [(1, 1000, 100), (10, 1000, 100), (30, 1000, 300), (30, 50, 50)]
)
def test_more_hits_are_compared_than_groups_are_asked_for(top_k, most, expected):
    assert compared(top_k, most=most) == expected
