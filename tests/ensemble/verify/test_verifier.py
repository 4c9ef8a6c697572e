"""Spatial verification as a re-ranker, over real gRPC and a real store."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import fake_triton as fake
import numpy as np
import pytest
from fake_triton import PROFILE, SIZES
from grpc.aio import AioRpcError

from landseer.ensemble.errors import LocalFeaturesMissing, ProfileMismatch
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.verify import verifier as spatial
from landseer.ensemble.verify.verification import Located, verify
from landseer.ensemble.verify.verifier import MISSING, SETTINGS, Verifier, located
from landseer.v1 import index_pb2, search_pb2

SPATIAL = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_SPATIAL)
GRID = np.array([[x, y] for y in (0.1, 0.35, 0.6, 0.85) for x in (0.1, 0.35, 0.6, 0.85)], np.float32)


@pytest.fixture(autouse=True)
def spread(monkeypatch):
    """Features in the tiles of a picture: on one line, as the fake has them, any map fits."""

    def describe(inputs, sizes):
        height, width = inputs["image"].shape[1:3]
        places = GRID * np.array([width, height], np.float32)
        positions = np.zeros((1, sizes.locals, 2), np.float32)
        positions[0, : len(GRID)] = places
        found = fake._describe_full(inputs, sizes)
        descriptors = fake._patches(inputs["image"][0], places, sizes)[None]
        return found | {"local_positions": positions, "local_descriptors": descriptors}

    monkeypatch.setitem(fake._MODELS, "describe_full", describe)


async def fill(landseer, picture, count=8):
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(count)})


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


async def test_a_picture_agrees_with_itself_and_leads(start, picture):
    landseer = await start(local_features="deep")
    await fill(landseer, picture)
    plain = await search(landseer, image=picture(3, noise=25.0), top_k=8)
    answer = await search(landseer, image=picture(3, noise=25.0), top_k=8, reranking=SPATIAL)
    assert not answer.degradations and "rerank" in {timing.stage for timing in answer.timings}
    first = answer.hits[0]
    assert first.id == "p3" and first.scores.inliers >= 10 > answer.hits[1].scores.inliers
    before = {hit.id: getattr(hit.scores, "global") for hit in plain.hits}
    order = sorted(answer.hits, key=lambda hit: (-hit.scores.inliers, -before[hit.id]))
    assert [hit.id for hit in order] == [hit.id for hit in answer.hits]
    for hit in answer.hits:
        assert hit.scores.HasField("inliers") and not hit.scores.HasField("coattention")
        assert getattr(hit.scores, "global") == pytest.approx(before[hit.id])
        assert hit.score == pytest.approx(hit.scores.inliers + (1 + before[hit.id]) / 2, abs=1e-5)
    assert landseer.metric("landseer_searches_total", query="image", expansion="none", reranking="spatial") == 1
    # One call of Triton, which asks each last step of the ensemble for something, and for no features that none needs.
    call = landseer.triton.calls[-1]
    assert call.model == "describe_full"
    assert {"local_descriptors", "box_count", "cluster_count"} < set(call.outputs)
    assert not {"local_features", "clusters", "boxes"} & set(call.outputs)


async def test_by_id_the_stored_features_are_taken(start, picture):
    landseer = await start(local_features="deep")
    await fill(landseer, picture)
    await landseer.put(twin=picture(3, noise=15.0))
    answer = await search(landseer, id="p3", reranking=SPATIAL)
    assert answer.hits[0].id == "twin" and answer.hits[0].scores.inliers >= 10
    assert "p3" not in {hit.id for hit in answer.hits}
    calls = len(landseer.triton.calls)
    await search(landseer, id="p3", reranking=SPATIAL)
    assert len(landseer.triton.calls) == calls, "nothing is described"


async def test_only_the_short_list_is_verified(start, picture):
    landseer = await start(local_features="deep")
    await fill(landseer, picture)
    how = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_SPATIAL, candidates=3)
    answer = await search(landseer, image=picture(5), reranking=how, top_k=8)
    assert [hit.scores.HasField("inliers") for hit in answer.hits] == [True] * 3 + [False] * 5
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)


async def test_it_works_with_expansion_and_explanation(start, picture):
    landseer = await start(local_features="deep")
    await fill(landseer, picture)
    expansion = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_AQE)
    answer = await search(landseer, image=picture(5), reranking=SPATIAL, expansion=expansion, explain=True)
    assert not answer.degradations
    assert answer.hits[0].id == "p5" and answer.hits[0].scores.HasField("expanded")
    assert answer.query_explanation.boxes and answer.hits[0].explanation.thumbnail
    assert not answer.hits[0].explanation.HasField("coattention")


async def test_a_server_without_local_features_says_what_to_do(start, picture, rich):
    landseer = await start(local_features="none")
    await fill(landseer, picture, 2)
    with pytest.raises(AioRpcError) as caught:
        await search(landseer, image=picture(1), reranking=SPATIAL)
    error = rich(caught.value)
    assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "LOCAL_FEATURES_MISSING")
    assert "--local-features keypoints" in error.message
    told = (await landseer.index.Stats(index_pb2.StatsRequest())).local_features
    assert told == index_pb2.LocalFeaturesStats()
    assert "local_descriptors" not in landseer.triton.calls[0].outputs


async def test_an_invalid_request_names_the_field(start, picture, rich):
    landseer = await start(local_features="deep")
    weighed = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_SPATIAL, weight=0.5)
    vector = search_pb2.Descriptor(values=[1.0] * SIZES.channels)
    for request, field in (
        ({"image": picture(1), "reranking": weighed}, "reranking.weight"),
        ({"descriptor": vector, "reranking": SPATIAL}, "reranking.method"),
    ):
        with pytest.raises(AioRpcError) as caught:
            await search(landseer, **request)
        assert (rich(caught.value).code.name, rich(caught.value).fields) == ("INVALID_ARGUMENT", [field])


async def test_the_stats_say_how_many_have_them(start, picture):
    landseer = await start(local_features="deep")
    await fill(landseer, picture, 3)
    told = (await landseer.index.Stats(index_pb2.StatsRequest())).local_features
    assert told.kept and told.pictures == 3 and told.bytes > 0


async def test_pictures_that_were_indexed_without_them_keep_their_places(start, picture):
    landseer = await start(local_features="none")
    await fill(landseer, picture, 4)
    await landseer.server.stop(0.0)
    landseer = await start(local_features="deep")
    # None has any yet: the answer is that of the first search, and says why.
    query = {"image": picture(2, noise=30.0), "top_k": 9}
    plain = await search(landseer, **query)
    answer = await search(landseer, **query, reranking=SPATIAL)
    assert [hit.id for hit in answer.hits] == [hit.id for hit in plain.hits]
    assert answer.degradations[0].stage == "rerank"
    assert answer.degradations[0].reason.startswith("LOCAL_FEATURES_MISSING: none of the 4 candidates")
    by_id = await search(landseer, id="p2", reranking=SPATIAL)
    assert "the query picture was indexed without" in by_id.degradations[0].reason
    # Then some have.
    await landseer.put(**{f"q{seed}": picture(seed, noise=60.0) for seed in range(4)})
    plain = [hit.id for hit in (await search(landseer, **query)).hits]
    answer = await search(landseer, **query, reranking=SPATIAL)
    assert not answer.degradations
    for place, hit in enumerate(answer.hits):
        assert hit.scores.HasField("inliers") == hit.id.startswith("q")
        if hit.id.startswith("p"):
            assert plain[place] == hit.id
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    told = (await landseer.index.Stats(index_pb2.StatsRequest())).local_features
    assert (told.kept, told.pictures) == (True, 4)


async def test_slow_verification_is_skipped_in_time(start, picture, monkeypatch):
    # Seconds to answer in, on a busy machine too.
    landseer = await start(local_features="deep", answer_reserve_s=3.0)
    await fill(landseer, picture, 4)
    answered = threading.Event()
    monkeypatch.setattr(spatial, "verify", lambda *_: answered.wait(60))
    plain = await search(landseer, image=picture(2))
    request = search_pb2.SearchRequest(image=picture(2), reranking=SPATIAL)
    try:
        answer = await landseer.search.Search(request, timeout=6.0)
    finally:
        answered.set()
    assert {one.stage: one.seconds for one in answer.timings}["total"] < 6.0
    assert answer.degradations[0].reason.startswith("DEADLINE: ")
    assert [hit.id for hit in answer.hits] == [hit.id for hit in plain.hits]


async def test_a_store_of_other_local_features_is_not_served(start, picture, fake_triton):
    landseer = await start(local_features="deep")
    await fill(landseer, picture, 2)
    await landseer.server.stop(0.0)
    fake_triton.profile = dataclasses.replace(PROFILE, locals_sha256="2" * 64)
    refused = await start(local_features="deep", wait=False)
    with pytest.raises(ProfileMismatch, match="111111111111 in the store, 222222222222 served"):
        await refused.server.ready(60.0)
    await refused.server.stop(0.0)
    # Without them it is, for they shape no other vector.
    again = await start()
    assert len((await search(again, image=picture(1))).hits) == 2
    told = (await again.index.Stats(index_pb2.StatsRequest())).local_features
    assert (told.kept, told.pictures) == (False, 2)


async def test_models_that_change_the_local_features_meanwhile_are_refused(start, picture, fake_triton, rich):
    landseer = await start(local_features="deep")
    await fill(landseer, picture, 2)
    fake_triton.profile = dataclasses.replace(PROFILE, locals_sha256="2" * 64)
    end = time.monotonic() + 30
    while await landseer.serving() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    with pytest.raises(AioRpcError) as caught:
        await search(landseer, image=picture(1))
    assert rich(caught.value).reason == "PROFILE_MISMATCH" and "local features" in rich(caught.value).message


# The verifier alone.


class Kept:
    """In place of a store's local features."""

    def __init__(self, features):
        self.features = features

    def read(self, keys):
        return [self.features.get(key) for key in keys]


def scattered(seed, count=40):
    draws = np.random.default_rng(seed)
    rows = draws.standard_normal((count, 32)).astype(np.float32)
    return LocalFeatures(
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        positions=draws.uniform(0, 600, (count, 2)).astype(np.float32),
        scales=np.ones(count, np.float32),
        counts=(count,),
    )


@pytest.mark.parametrize("threads", [1, 3])
async def test_counts_are_those_of_verifying_one_by_one(threads):
    features = {key: scattered(key % 5) for key in range(30) if key % 7}
    verifier = Verifier(Kept(features), threads=threads)
    query, keys = located(scattered(2)), np.arange(29, -1, -1)
    try:
        counts = await verifier.inliers(query, keys)
        nothing = await verifier.inliers(query, keys[:0])
    finally:
        verifier.close()
    alone = [
        verify(query, [located(features[key])], SETTINGS)[0] if key in features else MISSING for key in keys.tolist()
    ]
    assert counts.tolist() == alone and counts.max() == 40 and len(nothing) == 0


async def test_a_short_list_without_features_is_rejected():
    verifier = Verifier(Kept({}), threads=2)
    try:
        with pytest.raises(LocalFeaturesMissing, match="none of the 3 candidates"):
            await verifier.inliers(Located(features=np.eye(4, 32), positions=np.zeros((4, 2))), np.arange(3))
    finally:
        verifier.close()


def test_only_the_whole_picture_is_matched():
    features = scattered(1)
    regional = dataclasses.replace(features, counts=(30, 10))
    assert len(located(regional).features) == 30
