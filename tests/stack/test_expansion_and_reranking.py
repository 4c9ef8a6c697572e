"""The stages after the first search: expansion, co-attention, and what explains an answer."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from stack.photos import encoded, pixels_of, wheel

from landseer.ensemble.store.store import Store
from landseer.v1 import search_pb2

pytestmark = pytest.mark.stack

COFFEE = wheel("coffee.png").read_bytes()
CLUTTER = ("brick.png", "gravel.png", "grass.png", "text.png")
LATTQE = search_pb2.EXPANSION_METHOD_LATTQE


def coattention(query, clusters):
    """Hu and Bors 2020, eqs. 7 to 10, for one candidate. query: [P], clusters: [k, P] → score, weights [k]."""
    query, clusters = query.astype(np.float64), clusters.astype(np.float64)
    query = query / np.linalg.norm(query)
    weights = np.exp(10.0 * (clusters @ query))
    weights /= weights.sum()
    attended = weights @ clusters
    return attended @ query / np.linalg.norm(attended), weights


@pytest.fixture(scope="module")
def stored(stack, landseer, album, eager, tmp_path_factory):
    """The records of all indexed photographs, read from a copy of the store: nobody writes meanwhile."""
    copy = tmp_path_factory.mktemp("copy") / "store"
    copy.mkdir()
    shutil.copy(stack.config.store / "data.mdb", copy)
    store = Store.open(copy, fingerprint=eager.profile.fingerprint)
    yield {id: store.get(id).record for id in album}
    store.close()


def test_the_rank_curve_needs_no_network_and_no_consent(landseer, album):
    answer = landseer.client.search(COFFEE, expansion="rank-curve")
    assert "lattqe" not in answer.untrained and "lattqe" not in {model.name for model in answer.model_versions}
    assert not answer.degradations
    assert {"expand", "research"} <= {timing.stage for timing in answer.timings}


def test_the_exported_lattqe_is_trained_and_says_which_neighbours_it_takes_for_relevant(landseer, album):
    assert "lattqe" not in landseer.client.stats().untrained
    request = search_pb2.SearchRequest(image=COFFEE, expansion={"method": LATTQE, "neighbours": 3}, explain=True)
    answer = landseer.search.Search(request)
    assert "lattqe" not in answer.untrained and not answer.degradations
    told = [hit.explanation.relevance for hit in answer.hits if hit.explanation.HasField("relevance")]
    assert 0 < len(told) <= 3 and all(0 < one < 1 for one in told)


def test_by_default_lattqe_expands_a_picture_that_is_sent_once_a_hit_is_verified(landseer, album):
    sent = landseer.search.Search(search_pb2.SearchRequest(image=COFFEE, explain=True))
    by_id = landseer.search.Search(search_pb2.SearchRequest(id="album/coffee.png", explain=True))
    assert not sent.degradations and not by_id.degradations
    assert sent.hits[0].id == "album/coffee.png" and sent.hits[0].verification.probability > 0.99
    assert [any(model.name == "lattqe" for model in one.model_versions) for one in (sent, by_id)] == [True, False]
    assert all(0 < hit.explanation.relevance < 1 for hit in sent.hits[:1])
    assert not any(hit.explanation.HasField("relevance") for hit in by_id.hits)


def test_expansion_is_what_torch_says(landseer, album, eager):
    """The expanded query of the k nearest, by torch, gives the scores that are answered."""
    k = 5
    expansion = search_pb2.Expansion(method=LATTQE, neighbours=k)
    query = np.array(landseer.client.get("album/coffee.png", include_vectors=True).descriptor, np.float32)
    plain = landseer.client.search(query.tolist(), top_k=1000)
    answer = landseer.client.search(query.tolist(), top_k=1000, expansion=expansion)
    rows = {hit.id: landseer.client.get(hit.id, include_vectors=True).descriptor for hit in plain.hits}
    near = np.array([rows[hit.id] for hit in plain.hits[:k]], np.float32)
    unit = query / np.linalg.norm(query)
    with torch.no_grad():
        inputs = (torch.from_numpy(unit[None]), torch.from_numpy(near[None]), torch.ones(1, k, dtype=torch.bool))
        expanded = eager.module("lattqe")(*inputs).expanded.numpy()[0]
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    for hit in answer.hits:
        assert hit.score == pytest.approx(hit.scores.expanded)
        # The model may be served in bf16.
        assert hit.scores.expanded == pytest.approx(float(np.array(rows[hit.id]) @ expanded), abs=0.01)
        assert getattr(hit.scores, "global") == pytest.approx(float(np.array(rows[hit.id]) @ unit), abs=1e-4)


def test_coattention_scores_are_the_papers(landseer, album, stored):
    for name in ("coffee.png", "rocket.jpg", "astronaut.png"):
        image = wheel(name)
        query = np.array(landseer.client.describe(image).query_vector.values)
        answer = landseer.client.search(image, top_k=1000, first_stage="global", reranking="coattention", explain=True)
        ours = [hit for hit in answer.hits if hit.id in stored and hit.scores.HasField("coattention")]
        assert len(ours) >= min(len(stored), 10)
        for hit in ours:
            score, weights = coattention(query, stored[hit.id].clusters)
            assert hit.scores.coattention == pytest.approx(score, abs=1e-3)
            assert hit.score == pytest.approx((hit.scores.coattention + getattr(hit.scores, "global")) / 2)
            np.testing.assert_allclose(hit.explanation.cluster_weights, weights, atol=1e-3)
        assert not answer.degradations
        assert "reduction" in answer.untrained or "reduction" not in landseer.client.stats().untrained


def test_a_weight_mixes_both_scores_and_zero_changes_nothing(landseer, album):
    def reranking(weight):
        return search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, weight=weight)

    plain = landseer.client.search(COFFEE, top_k=8, first_stage="global", reranking="none")
    nothing = landseer.client.search(COFFEE, top_k=8, first_stage="global", reranking=reranking(0.0))
    assert [hit.id for hit in nothing.hits] == [hit.id for hit in plain.hits]
    for hit in landseer.client.search(COFFEE, top_k=8, first_stage="global", reranking=reranking(0.3)).hits:
        mixed = 0.3 * hit.scores.coattention + 0.7 * getattr(hit.scores, "global")
        assert hit.score == pytest.approx(mixed, abs=1e-5)


def inside(box, x, y, width, height, slack=0.51):
    """Whether a box has an area and lies in a rectangle; pixels were rounded on the way."""
    return (
        min(box.width, box.height) > 0
        and box.x >= x - slack
        and box.y >= y - slack
        and box.x + box.width <= x + width + slack
        and box.y + box.height <= y + height + slack
    )


def heats(heatmap):
    values = np.array(heatmap.values)
    return len(values) == heatmap.height * heatmap.width > 0 and values.min() >= 0 and values.max() <= 1


def test_an_explanation_has_maps_boxes_and_thumbnails(landseer, album):
    region = (100.0, 50.0, 300.0, 200.0)
    for where in (None, region):
        answer = landseer.client.search(
            COFFEE, region=where, top_k=5, first_stage="global", reranking="coattention", explain=True
        )
        told = answer.query_explanation
        assert (told.width, told.height) == (600, 400)
        wanted = where or (0, 0, 600, 400)
        assert (told.region.x, told.region.y, told.region.width, told.region.height) == wanted
        assert heats(told.attention) and max(told.attention.values) > 0.5
        assert told.boxes and all(inside(found.box, *wanted) for found in told.boxes)
        assert max(Image.open(io.BytesIO(told.thumbnail)).size) == 256
        assert answer.hits[0].id == "album/coffee.png"
        for hit in answer.hits:
            why = hit.explanation
            assert heats(why.coattention) and max(why.coattention.values) == pytest.approx(1.0)
            assert sum(why.cluster_weights) == pytest.approx(1.0, abs=1e-3)
            assert why.boxes and all(inside(found.box, 0, 0, hit.width, hit.height) for found in why.boxes)
            small = Image.open(io.BytesIO(why.thumbnail))
            assert small.width / small.height == pytest.approx(hit.width / hit.height, rel=0.03)
    assert not landseer.client.search(COFFEE, top_k=1).hits[0].HasField("explanation")


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png", "rocket.jpg", "camera.png"])
def test_a_region_of_interest_finds_a_small_object_in_clutter(landseer, album, name):
    tiles = [pixels_of(wheel(one))[:170, :320] for one in CLUTTER]
    scene = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])
    thing = Image.fromarray(pixels_of(wheel(name)))
    thing = thing.resize((160, round(160 * thing.height / thing.width)))
    x, y = 250, 60
    scene[y : y + thing.height, x : x + thing.width] = np.asarray(thing)
    image = encoded(scene, "JPEG", quality=92)

    def found(region):
        """Return the best of the photographs, and the score of the one that shows the thing."""
        hits = landseer.client.search(image, region=region, top_k=1000, first_stage="global", reranking="none").hits
        photos = [hit for hit in hits if hit.id in album]
        return photos[0].id, next(hit.score for hit in photos if hit.id == f"album/{name}")

    _, whole = found(None)
    first, part = found((x, y, thing.width, thing.height))
    assert part > whole + 0.05
    assert first == f"album/{name}"
