"""The default search, end to end: covers are found by photographs of them, and outlined."""

from __future__ import annotations

import asyncio
import dataclasses
import io

import grpc
import numpy as np
import pytest
from fake_triton import PROFILE
from grpc.aio import AioRpcError
from PIL import Image
from plain import PLAIN
from prints import SIZE, apply, camera, corners_of, cover, photographed

from landseer.ensemble.errors import Overloaded, ProfileMismatch
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.keypoints.extractor import Extractor
from landseer.ensemble.keypoints.shipped import FEATURES, shipped_codebook
from landseer.ensemble.verify.keypoint_verifier import KeypointVerifier
from landseer.v1 import index_pb2, search_pb2

COVERS = 5
SEEN = camera(turn=155, tilt=0.3, zoom=0.7)
"""From a cover to its photograph: turned until it nearly stands on its head, and tilted."""


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def large(fake_triton):
    """The models' input is as large as a cover: keypoints need pixels."""
    fake_triton.profile = dataclasses.replace(PROFILE, long_side=400)


@pytest.fixture(scope="module")
def covers():
    return {f"c{seed}": encoded(cover(seed)) for seed in range(COVERS)}


@pytest.fixture(scope="module")
def photograph():
    """Of c3."""
    return encoded(photographed(cover(3), SEEN))


@pytest.fixture(scope="module")
def bridge():
    """Two photographs of c3 that match it, and hardly each other."""
    return tuple(encoded(photographed(cover(3), camera(tilt=tilt, zoom=0.5))) for tilt in (-1.5, 1.5))


@pytest.fixture
async def shop(start, covers):
    landseer = await start()
    await landseer.put(**covers)
    return landseer


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


def told_of(points):
    return np.array([(point.x, point.y) for point in points])


def within(points, size, margin):
    """Whether all points [n, 2] lie in a picture of that size, or little outside."""
    return (points >= -margin).all() and (points <= np.array(size) + margin).all()


async def test_a_turned_and_tilted_photograph_finds_its_cover_and_where_it_lies(shop, photograph):
    # The global descriptor of the stand-in does not stand turning: words and verification find it.
    assert (await search(shop, image=photograph, **PLAIN)).hits[0].id != "c3"
    answer = await search(shop, image=photograph, explain=True)
    assert not answer.degradations
    first, second = answer.hits[:2]
    assert first.id == "c3" and first.verification.probability > 0.95 > 0.5 > second.verification.probability
    assert first.verification.inliers == first.scores.inliers > 5 * second.scores.inliers
    assert first.scores.HasField("words") and first.scores.HasField("global")
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    stages = [timing.stage for timing in answer.timings]
    before = ["decode", "describe", "keypoints", "search", "words"]
    assert stages == [*before, "expand", "research", "rerank", "via", "store", "total"]

    # The outline is the box around what agrees in the photograph, seen in the cover.
    back = np.linalg.inv(SEEN)
    pairs = first.explanation.matches
    here, there = told_of(pair.query for pair in pairs), told_of(pair.hit for pair in pairs)
    assert len(pairs) == min(first.verification.inliers, 500)
    assert within(here, SIZE, 0) and within(there, SIZE, 0)
    assert np.median(np.linalg.norm(apply(back, here - 0.5) - (there - 0.5), axis=1)) < 2
    (left, top), (right, bottom) = here.min(axis=0), here.max(axis=0)
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    outline = told_of(first.verification.outline)
    np.testing.assert_allclose(outline, apply(back, box - 0.5) + 0.5, atol=15)
    assert within(outline, SIZE, 150)
    # And it covers most of the cover.
    assert left < apply(SEEN, corners_of())[:, 0].min() + 60


async def test_a_region_is_matched_in_pixels_of_the_whole_photograph(shop, covers):
    pixels = np.full((600, 800, 3), 120, np.uint8)
    pixels[200:500, 300:700] = cover(2)
    region = {"x": 280, "y": 190, "width": 440, "height": 330}
    answer = await search(shop, image=encoded(pixels), region=region, explain=True)
    assert answer.hits[0].id == "c2" and answer.hits[0].verification.probability > 0.95
    pairs = answer.hits[0].explanation.matches
    here, there = told_of(pair.query for pair in pairs), told_of(pair.hit for pair in pairs)
    np.testing.assert_allclose(np.median(here - there, axis=0), (300, 200), atol=1.0)


async def test_an_indexed_picture_finds_its_photograph(shop, photograph):
    await shop.put(photo=photograph)
    calls = len(shop.triton.calls)
    answer = await search(shop, id="c3")
    assert not answer.degradations and len(shop.triton.calls) == calls, "nothing is described"
    assert answer.hits[0].id == "photo" and answer.hits[0].verification.probability > 0.95
    assert "c3" not in {hit.id for hit in answer.hits}
    outline = told_of(answer.hits[0].verification.outline)
    np.testing.assert_allclose(outline.mean(axis=0), apply(SEEN, corners_of()).mean(axis=0), atol=60)
    stages = [timing.stage for timing in answer.timings]
    assert stages == ["search", "words", "expand", "research", "rerank", "via", "store", "total"]


async def test_a_raw_descriptor_is_searched_for_by_the_global_search(shop):
    vector = (await shop.index.Get(index_pb2.GetRequest(id="c1", include_vectors=True))).descriptor
    answer = await search(shop, descriptor={"values": vector})
    assert answer.hits[0].id == "c1" and answer.hits[0].score == pytest.approx(1, abs=1e-3)
    assert not answer.degradations
    assert not any(hit.HasField("verification") or hit.scores.HasField("words") for hit in answer.hits)
    assert [timing.stage for timing in answer.timings] == ["search", "store", "total"]


async def test_by_words_alone_it_is_found_too(shop, photograph):
    how = PLAIN | {"first_stage": search_pb2.FIRST_STAGE_WORDS}
    answer = await search(shop, image=photograph, **how)
    assert answer.hits[0].id == "c3" and not answer.hits[0].HasField("verification")
    assert 0 < answer.hits[0].score == answer.hits[0].scores.words <= 1


async def test_a_picture_without_keypoints_is_answered_by_its_descriptor(shop):
    blank = encoded(np.full((300, 400, 3), (200, 30, 30), np.uint8))
    await shop.put(blank=blank)
    for query in ({"image": blank}, {"id": "blank"}):
        answer = await search(shop, **query)
        assert not answer.degradations and len(answer.hits) == COVERS + ("image" in query)
        assert {hit.verification.inliers for hit in answer.hits} == {0}
    assert (await search(shop, image=blank)).hits[0].id == "blank"


async def test_additions_replacements_and_deletions_are_followed(shop, photograph, covers):
    await shop.index.Delete(index_pb2.DeleteRequest(id="c3"))
    answer = await search(shop, image=photograph)
    assert "c3" not in {hit.id for hit in answer.hits} and answer.hits[0].verification.probability < 0.5
    await shop.put(c1=covers["c3"])
    answer = await search(shop, image=photograph)
    assert answer.hits[0].id == "c1" and answer.hits[0].verification.probability > 0.95
    told = await shop.index.Stats(index_pb2.StatsRequest())
    assert (told.keypoints.kept, told.keypoints.pictures) == (True, COVERS - 1) and told.keypoints.bytes > 0
    assert (told.visual_words.words, told.visual_words.kernel) == (16_384, "how-idf")
    assert (told.visual_words.pictures, told.visual_words.codebook) == (COVERS - 1, shipped_codebook().fingerprint)


async def test_started_again_it_answers_the_same(shop, start, photograph):
    before = await search(shop, image=photograph)
    await shop.server.stop(0.0)
    after = await search(await start(), image=photograph)
    assert [(hit.id, hit.score, hit.verification) for hit in after.hits] == [
        (hit.id, hit.score, hit.verification) for hit in before.hits
    ]


async def test_pictures_indexed_without_keypoints_are_still_found_and_the_answer_says_what_to_do(
    start, covers, photograph
):
    landseer = await start(local_features="none")
    await landseer.put(**covers)
    assert not (await landseer.index.Stats(index_pb2.StatsRequest())).keypoints.kept
    await landseer.server.stop(0.0)

    landseer = await start()
    by_picture, by_id = await search(landseer, image=photograph), await search(landseer, id="c3")
    plain = await search(landseer, image=photograph, **PLAIN)
    assert [hit.id for hit in by_picture.hits] == [hit.id for hit in plain.hits] and len(by_id.hits) == COVERS - 1
    [reason] = [degradation.reason for degradation in by_picture.degradations if degradation.stage == "rerank"]
    assert reason.startswith(f"LOCAL_FEATURES_MISSING: none of the {COVERS} candidates has keypoints; index")
    reasons = {degradation.stage: degradation.reason for degradation in by_id.degradations}
    assert reasons.keys() == {"words", "rerank"}
    assert all("the query picture was indexed without keypoints; index it again" in why for why in reasons.values())

    # Indexed again, one is found; the others keep their places.
    await landseer.put(c3=covers["c3"])
    answer = await search(landseer, image=photograph)
    assert answer.hits[0].id == "c3" and not answer.degradations
    assert [hit.HasField("verification") for hit in answer.hits] == [True] + [False] * (COVERS - 1)


async def test_a_server_without_keypoints_searches_by_the_descriptor(start, covers, photograph):
    landseer = await start(local_features="none")
    await landseer.put(**covers)
    answer, plain = await search(landseer, image=photograph), await search(landseer, image=photograph, **PLAIN)
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in plain.hits]
    assert not answer.degradations and not answer.hits[0].HasField("verification")


async def test_keypoints_that_are_not_found_in_time_are_left_out(shop, photograph, monkeypatch, rich):
    async def busy(self, pixels):
        raise Overloaded("256 tasks already wait for the keypoints threads; try again later")

    monkeypatch.setattr(Extractor, "of_query", busy)
    answer = await search(shop, image=photograph)
    plain = await search(shop, image=photograph, **PLAIN)
    assert [hit.id for hit in answer.hits] == [hit.id for hit in plain.hits]
    reasons = {degradation.stage: degradation.reason for degradation in answer.degradations}
    assert reasons.keys() == {"keypoints", "words", "rerank"}
    assert reasons["keypoints"].startswith("OVERLOADED: 256 tasks")
    for stage in ("words", "rerank"):
        assert reasons[stage].endswith("were not found, as the degradation of `keypoints` says")
    # By words alone there is no answer without them.
    with pytest.raises(AioRpcError) as caught:
        await search(shop, image=photograph, first_stage=search_pb2.FIRST_STAGE_WORDS)
    assert (rich(caught.value).code.name, rich(caught.value).reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")


async def test_a_slow_extraction_does_not_use_up_the_deadline(start, covers, photograph, monkeypatch):
    async def slow(self, pixels):
        await asyncio.sleep(30)

    landseer = await start(answer_reserve_s=4.0)
    await landseer.put(**covers)
    monkeypatch.setattr(Extractor, "of_query", slow)
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=photograph), timeout=4.5)
    assert len(answer.hits) == COVERS
    assert {degradation.stage for degradation in answer.degradations} == {"keypoints", "words", "rerank"}


async def test_with_both_keypoints_verify_and_deep_features_are_stored(start, covers, photograph):
    landseer = await start(local_features="both")
    await landseer.put(**covers)
    told = await landseer.index.Stats(index_pb2.StatsRequest())
    assert (told.local_features.pictures, told.keypoints.pictures) == (COVERS, COVERS)
    answer = await search(landseer, image=photograph)
    assert answer.hits[0].id == "c3" and answer.hits[0].verification.probability > 0.95
    assert landseer.triton.calls[-1].model == "describe", "deep local features are not asked for"


async def test_a_store_with_words_of_another_codebook_is_not_served(shop, start, tmp_path):
    await shop.server.stop(0.0)
    rows = shipped_codebook().centroids[:512]
    dataclasses.replace(shipped_codebook(), centroids=rows, card={"features": FEATURES}).save(tmp_path / "words")
    refused = await start(codebook=tmp_path / "words", wait=False)
    with pytest.raises(ProfileMismatch, match=f"words of codebook {shipped_codebook().fingerprint}"):
        await refused.server.ready(60.0)


async def test_an_error_of_the_models_ends_the_search(shop, photograph):
    shop.triton.failures["describe"] = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(AioRpcError) as caught:
        await search(shop, image=photograph)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    shop.triton.failures.clear()
    assert (await search(shop, image=photograph)).hits[0].id == "c3"


ONCE = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_NONE)


async def test_a_verified_hit_expands_the_query(shop, photograph):
    once, again = await search(shop, image=photograph, expansion=ONCE), await search(shop, image=photograph)
    assert not again.degradations and not {"expand", "research", "via"} & {one.stage for one in once.timings}
    before, after = once.hits[0], again.hits[0]
    assert (after.id, after.verification.inliers) == ("c3", before.verification.inliers)
    assert not before.scores.HasField("expanded")
    # The query moved towards the hit, half of the way.
    assert after.scores.expanded > getattr(after.scores, "global") + 0.01
    assert {hit.id for hit in again.hits} == {hit.id for hit in once.hits}


def expansions_timed(landseer):
    return landseer.metric("landseer_stage_duration_seconds_count", stage="expand")


@pytest.fixture
async def trained(start, fake_triton, covers):
    """A server whose LAttQE is trained."""
    fake_triton.profile = dataclasses.replace(fake_triton.profile, untrained=())
    landseer = await start()
    await landseer.put(**covers)
    return landseer


async def test_a_verified_hit_is_added_to_what_a_trained_lattqe_makes_of_the_query(trained, photograph):
    once = await search(trained, image=photograph, expansion=ONCE)
    answer = await search(trained, image=photograph, explain=True)
    assert not answer.degradations and trained.triton.calls[-1].model == "lattqe"
    assert expansions_timed(trained) == 1
    assert "lattqe" in {model.name for model in answer.model_versions}
    stages = [timing.stage for timing in answer.timings]
    assert stages[-6:] == ["expand", "research", "rerank", "via", "store", "total"]
    first = answer.hits[0]
    assert first.id == "c3" and first.verification.inliers == once.hits[0].verification.inliers
    # All are neighbours of so few: the fake network takes each for right with one half, and returns the mean.
    assert {hit.explanation.relevance for hit in answer.hits} == {0.5} and len(answer.hits) == COVERS
    stored = {}
    for id in sorted(hit.id for hit in answer.hits):
        got = await trained.index.Get(index_pb2.GetRequest(id=id, include_vectors=True))
        stored[id] = np.array(got.descriptor)
    asked = np.array((await trained.search.Describe(search_pb2.DescribeRequest(image=photograph))).descriptor.values)
    learned = asked / np.linalg.norm(asked) + sum(stored.values())
    expected = learned / np.linalg.norm(learned) + 0.2 * stored["c3"]
    for hit in answer.hits:
        assert hit.scores.expanded == pytest.approx(stored[hit.id] @ expected / np.linalg.norm(expected), abs=1e-3)


@pytest.mark.parametrize("query", ["image", "id"])
async def test_lattqe_is_not_asked_where_it_is_not_needed(trained, query, photograph):
    await trained.put(photo=photograph)
    fields = {"image": photograph} if query == "image" else {"id": "photo"}
    for how in ([], [ONCE], [search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_VERIFIED)]):
        calls = len(trained.triton.calls)
        answer = await search(trained, **fields, **({"expansion": how[0]} if how else {}))
        asked = [call.model for call in trained.triton.calls[calls:] if call.model == "lattqe"]
        assert not answer.degradations and asked == ["lattqe"] * (query == "image" and not how)


async def test_lattqe_is_not_asked_without_a_verified_hit(trained):
    stranger = encoded(photographed(cover(99), SEEN))
    once, answer = await search(trained, image=stranger, expansion=ONCE), await search(trained, image=stranger)
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in once.hits]
    assert not {"expand", "research", "via"} & {one.stage for one in answer.timings}


async def test_lattqe_is_not_asked_where_nothing_was_compared(trained, photograph, monkeypatch):
    async def busy(self, pixels):
        raise Overloaded("256 tasks already wait for the keypoints threads; try again later")

    monkeypatch.setattr(Extractor, "of_query", busy)
    answer, plain = await search(trained, image=photograph), await search(trained, image=photograph, **PLAIN)
    assert [hit.id for hit in answer.hits] == [hit.id for hit in plain.hits]
    assert {one.stage for one in answer.degradations} == {"keypoints", "words", "rerank"}
    assert not {"expand", "research"} & {one.stage for one in answer.timings}


async def test_without_lattqe_verified_hits_expand_the_query_itself(trained, photograph):
    verified = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_VERIFIED)
    expected = await search(trained, image=photograph, expansion=verified)
    timed = expansions_timed(trained)
    trained.triton.failures["lattqe"] = (grpc.StatusCode.INTERNAL, "broken")
    answer = await search(trained, image=photograph)
    assert [(one.stage, one.reason[:16]) for one in answer.degradations] == [("expand", "INFERENCE_FAILED")]
    assert expansions_timed(trained) == timed + 1
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in expected.hits]
    assert "lattqe" not in {model.name for model in answer.model_versions}


async def test_without_a_verified_hit_the_answer_stays(shop):
    stranger = encoded(photographed(cover(99), SEEN))
    once, again = await search(shop, image=stranger, expansion=ONCE), await search(shop, image=stranger)
    assert "expand" not in {one.stage for one in again.timings}
    assert [(hit.id, hit.score) for hit in again.hits] == [(hit.id, hit.score) for hit in once.hits]


async def test_a_picture_that_only_a_verified_hit_matches_is_recognised_via_it(shop, bridge):
    query, far = bridge
    await shop.put(far=far)
    once, again = await search(shop, image=query, expansion=ONCE), await search(shop, image=query, explain=True)
    (before,), (after,) = ([hit for hit in answer.hits if hit.id == "far"] for answer in (once, again))
    assert before.verification.probability < 0.5 and not before.verification.HasField("via")
    via = after.verification.via
    assert via.id == "c3" == again.hits[0].id and len(via.outline) == 4
    assert via.inliers > after.verification.inliers
    after.verification.ClearField("via")
    assert after.verification == before.verification, "all else is of the query itself"

    # A page that lacks the hit by which another was recognised still names it.
    place = [hit.id for hit in again.hits].index("far")
    page = await search(shop, image=query, page_size=place)
    page = await search(shop, image=query, page_size=place, page_token=page.next_page_token)
    assert (page.hits[0].id, page.hits[0].verification.via.id) == ("far", "c3")


@pytest.mark.parametrize(
    ("broken", "stage"), [((KeypointVerifier, "vias"), "via"), ((Collection, "descriptors"), "expand")]
)
async def test_what_fails_after_verification_leaves_what_was_verified(shop, bridge, monkeypatch, broken, stage):
    query, far = bridge
    await shop.put(far=far)

    async def busy(self, *args):
        raise Overloaded("256 tasks already wait for these threads; try again later")

    monkeypatch.setattr(*broken, busy)
    answer = await search(shop, image=query)
    assert [(one.stage, one.reason[:10]) for one in answer.degradations] == [(stage, "OVERLOADED")]
    assert answer.hits[0].id == "c3" and answer.hits[0].verification.probability > 0.95
    assert not any(hit.verification.HasField("via") for hit in answer.hits)
    assert answer.hits[0].scores.HasField("expanded") == (stage == "via")


async def test_with_a_trained_lattqe_descriptors_that_cannot_be_read_leave_what_was_verified(
    trained, photograph, monkeypatch
):
    once = await search(trained, image=photograph, expansion=ONCE)

    async def busy(self, keys):
        raise Overloaded("256 tasks already wait for these threads; try again later")

    monkeypatch.setattr(Collection, "descriptors", busy)
    answer = await search(trained, image=photograph)
    assert [(one.stage, one.reason[:10]) for one in answer.degradations] == [("expand", "OVERLOADED")]
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in once.hits]
    assert expansions_timed(trained) == 1 and not any(hit.scores.HasField("expanded") for hit in answer.hits)
