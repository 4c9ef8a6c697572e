"""Regions of a picture, described again when it is indexed."""

from __future__ import annotations

import dataclasses

import fake_triton as fake
import grpc
import numpy as np
import pytest
from fake_triton import PROFILE, SIZES
from grpc.aio import AioRpcError

from landseer.ensemble.asmk.codebook import train
from landseer.ensemble.ingest.regions import regions_of
from landseer.ensemble.pictures import pictures
from landseer.ensemble.pictures.pictures import Region, prepare
from landseer.ensemble.store.local_features import LocalFeatures, joined, of_tensors, pack_features, unpack_features
from landseer.ensemble.store.store import Store
from landseer.v1 import index_pb2, search_pb2

BOXES = np.array([[0.25, 0.1, 0.75, 0.6, 0.9], [0.5, 0.5, 1.0, 1.0, 0.4], [0.0, 0.0, 0.5, 0.5, 0.05]], np.float32)


@pytest.fixture(autouse=True)
def boxed(monkeypatch):
    """Two boxes above the threshold and one below; and the backbone as a separate model, which the fake lacks."""

    def describe(inputs, sizes):
        height, width = inputs["image"].shape[1:3]
        corners = BOXES[:, :4] * np.array([width, height, width, height], np.float32)
        boxes = {"boxes": corners[None], "box_scores": BOXES[None, :, 4], "box_count": np.array([[3]], np.int32)}
        return fake._describe_full(inputs, sizes) | boxes

    monkeypatch.setitem(fake._MODELS, "describe_full", describe)
    monkeypatch.setitem(fake._MODELS, "backbone", fake._describe_full)


def expected(image, regions):
    """Return the features of the whole picture and of its regions as the store keeps them."""
    whole, parts = Region(x=0, y=0, width=96, height=64), []
    for region in (whole, *regions):
        pixels = prepare(image, profile=PROFILE, region=region).pixels
        tensors = fake._describe_full({"image": pixels[None]}, SIZES)
        parts.append(of_tensors({name: tensor[0] for name, tensor in tensors.items()}))
    return unpack_features(pack_features(joined(parts)))


def stored(folder):
    store = Store.open(folder, fingerprint=PROFILE.fingerprint, clusters_shape=(4, 12))
    [(_, features)] = list(store.locals.scan())
    store.close()
    return features


@pytest.mark.parametrize("most", [0, 1, 5])
async def test_the_best_boxes_are_described_as_a_query_of_that_region_is(start, config, picture, most):
    landseer = await start(local_features="deep", regions=most)
    await landseer.put(a=picture(1))
    calls = [call.model for call in landseer.triton.calls]
    told = (await landseer.index.Stats(index_pb2.StatsRequest())).local_features
    regions = landseer.metric("landseer_stage_duration_seconds_count", stage="regions")
    await landseer.server.stop(0.0)
    assert calls == ["describe_full", *["backbone"] * min(most, 2)]
    assert told.regions == most and regions == (most > 0)
    for call in landseer.triton.calls[1:]:
        assert set(call.outputs) == {"local_descriptors", "local_count", "local_positions", "local_scales"}
    boxes = [Region(x=24, y=6.4, width=48, height=32), Region(x=48, y=32, width=48, height=32)][:most]
    [found] = stored(config.store)
    wanted = expected(picture(1), boxes)
    assert found.counts == wanted.counts == (16,) * (1 + len(boxes))
    np.testing.assert_allclose(found.descriptors, wanted.descriptors, atol=0.02)
    np.testing.assert_allclose(found.positions, wanted.positions, atol=0.1)


@pytest.fixture
def codebook(tmp_path):
    rows = np.random.default_rng(0).standard_normal((400, SIZES.local)).astype(np.float32)
    book = train(rows / np.linalg.norm(rows, axis=1, keepdims=True), words=16, rounds=3)
    dataclasses.replace(book, card={"locals_sha256": PROFILE.locals_sha256}).save(tmp_path / "words")
    return tmp_path / "words"


async def test_a_picture_is_found_by_words_of_its_regions(start, codebook, picture):
    landseer = await start(local_features="deep", regions=2, codebook=codebook)
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(6)})
    told = (await landseer.index.Stats(index_pb2.StatsRequest())).visual_words
    assert (told.kernel, told.pictures) == ("r-asmk", 6)
    query = search_pb2.SearchRequest(image=picture(4), first_stage=search_pb2.FIRST_STAGE_WORDS)
    query.region.CopyFrom(search_pb2.SearchRequest(region={"x": 24, "y": 6.4, "width": 48, "height": 32}).region)
    hits = (await landseer.search.Search(query)).hits
    assert hits[0].id == "p4" and 0 < hits[0].score <= 1


async def test_a_region_that_fails_fails_the_picture(start, picture, rich):
    landseer = await start(local_features="deep", regions=2)
    landseer.triton.failures["backbone"] = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(AioRpcError) as caught:
        await landseer.put(a=picture(1))
    assert rich(caught.value).reason == "INFERENCE_FAILED"
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).pictures == 0
    assert landseer.metric("landseer_stage_errors_total", stage="regions", reason="INFERENCE_FAILED") == 1


def test_boxes_become_regions_inside_the_picture():
    boxes = np.array(
        [
            [-0.4, 10, 50, 30, 0.9],
            [90, 50, 10.3, 10.3, 0.5],
            [0, 0, 0.5, 40, 0.4],
            [5, 5, 9, 9, 0.1],
            [1, 1, 9, 9, 0.09],
        ],
        np.float32,
    )
    found = regions_of(boxes, most=10, width=100, height=60)
    assert [(round(r.x), round(r.y), round(r.x + r.width, 3), round(r.y + r.height, 3)) for r in found] == [
        (0, 10, 49.6, 40),
        (90, 50, 100, 60),
        (5, 5, 14, 14),
    ]
    assert regions_of(boxes, most=1, width=100, height=60) == found[:1]
    assert regions_of(boxes[:0], most=3, width=100, height=60) == []


def test_parts_lie_one_after_the_other():
    def part(count):
        return LocalFeatures(
            descriptors=np.full((count, 4), count, np.float32),
            positions=np.full((count, 2), count, np.float32),
            scales=np.ones(count, np.float32),
            counts=(count,),
        )

    whole = joined([part(3), part(0), part(2)])
    assert whole.counts == (3, 0, 2) and whole.whole.counts == (3,)
    assert whole.positions[:, 0].tolist() == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("options", [{"regions": -1, "local_features": "deep"}, {"regions": 2}])
def test_settings_that_cannot_work_are_refused(config, options):
    with pytest.raises(ValueError, match="expected 0, or more together with local-features"):
        dataclasses.replace(config, **options)


@pytest.mark.parametrize(
    ("options", "kernel"), [({}, "asmk"), ({"regions": 3}, "r-asmk"), ({"regions": 3, "kernel": "how"}, "how")]
)
async def test_the_kernel_follows_the_regions(start, codebook, options, kernel):
    landseer = await start(local_features="deep", codebook=codebook, **options)
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).visual_words.kernel == kernel


async def test_a_picture_is_decoded_once_more_for_all_its_regions(start, picture, monkeypatch):
    landseer = await start(local_features="deep", regions=2)
    decoded, colours = [], pictures._colours
    monkeypatch.setattr(pictures, "_colours", lambda one: (decoded.append(1), colours(one))[1])
    await landseer.put(a=picture(1))
    assert [call.model for call in landseer.triton.calls] == ["describe_full", "backbone", "backbone"]
    assert len(decoded) == 2
