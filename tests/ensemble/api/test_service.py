"""The services end to end, over real gRPC, a real store and a real index."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_triton import SIZES
from grpc.aio import AioRpcError
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from plain import PLAIN

from landseer.ensemble.inference.triton import GRAPHS
from landseer.ensemble.search.expansion.dqe import NEGATIVES
from landseer.ensemble.search.expansion.methods import classical
from landseer.v1 import common_pb2, index_pb2, search_pb2

COATTENTION = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION)
LATTQE = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, neighbours=3, allow_untrained=True)


async def fill(landseer, picture, count=12):
    await landseer.put(**{f"p{seed:02}": picture(seed) for seed in range(count)})


@pytest.mark.parametrize(
    ("how", "stages"),
    [
        (PLAIN, ["decode", "describe", "search", "store", "total"]),
        ({}, ["decode", "describe", "keypoints", "search", "words", "rerank", "store", "total"]),
    ],
)
async def test_a_picture_finds_itself_first(landseer, picture, how, stages):
    await fill(landseer, picture)
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(7, noise=4.0), **how))
    assert answer.hits[0].id == "p07"
    assert len(answer.hits) == 10
    assert answer.index_size == 12
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert [timing.stage for timing in answer.timings] == stages
    assert [(model.name, model.version) for model in answer.model_versions] == [("backbone", "1")]
    assert not answer.untrained
    assert not answer.degradations
    assert not answer.HasField("query_explanation")


async def test_search_equals_brute_force_over_the_stored_descriptors(landseer, picture):
    await fill(landseer, picture, 20)
    described = await landseer.search.Describe(search_pb2.DescribeRequest(image=picture(3, noise=30.0)))
    query = np.array(described.descriptor.values)
    stored = {}
    for seed in range(20):
        got = await landseer.index.Get(index_pb2.GetRequest(id=f"p{seed:02}", include_vectors=True))
        stored[got.id] = float(np.array(got.descriptor) @ query)
    expected = sorted(stored, key=lambda id: -stored[id])[:8]
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(3, noise=30.0), top_k=8, **PLAIN))
    assert [hit.id for hit in answer.hits] == expected
    assert [hit.score for hit in answer.hits] == pytest.approx([stored[id] for id in expected], abs=1e-6)


async def test_list_pages_through_the_ids_of_a_folder(landseer, picture):
    ids = ["a/é.png", "a/b.png", "a/c.png", "ab.png", "z.png"]
    for seed, id in enumerate(ids):
        one = index_pb2.Picture(id=id, image=picture(seed), metadata={"path": f"/{id}"})
        await landseer.index.Upsert(index_pb2.UpsertRequest(picture=one))
    first = await landseer.index.List(index_pb2.ListRequest(prefix="a/", page_size=2))
    assert [(one.id, dict(one.metadata)) for one in first.pictures] == [("a/b.png", {}), ("a/c.png", {})]
    await landseer.index.Delete(index_pb2.DeleteRequest(id="a/c.png"))  # The page goes on behind it all the same.
    more = {"page_token": first.next_page_token, "include_metadata": True}
    last = await landseer.index.List(index_pb2.ListRequest(prefix="a/", **more))
    assert [(one.id, dict(one.metadata)) for one in last.pictures] == [("a/é.png", {"path": "/a/é.png"})]
    assert not last.next_page_token
    everything = await landseer.index.List(index_pb2.ListRequest())
    assert [one.id for one in everything.pictures] == sorted(set(ids) - {"a/c.png"}, key=str.encode)
    assert not (await landseer.index.List(index_pb2.ListRequest(prefix="zz"))).pictures


@pytest.mark.parametrize("bad", [{"page_size": 10_001}, {"prefix": "é" * 251}, {"page_token": "a" * 501}], ids=str)
async def test_list_names_the_field_that_is_wrong(landseer, rich, bad):
    with pytest.raises(AioRpcError) as caught:
        await landseer.index.List(index_pb2.ListRequest(**bad))
    assert rich(caught.value).fields == list(bad)


async def test_search_by_id_leaves_the_picture_itself_out(landseer, picture):
    await fill(landseer, picture, 5)
    answer = await landseer.search.Search(search_pb2.SearchRequest(id="p03", top_k=50))
    assert sorted(hit.id for hit in answer.hits) == ["p00", "p01", "p02", "p04"]


async def test_a_raw_descriptor_may_have_any_norm(landseer, picture):
    await fill(landseer, picture, 5)
    got = await landseer.index.Get(index_pb2.GetRequest(id="p02", include_vectors=True))
    for factor in (1.0, 1e-30, 1e30):
        values = [value * factor for value in got.descriptor]
        answer = await landseer.search.Search(
            search_pb2.SearchRequest(descriptor=search_pb2.Descriptor(values=values), top_k=1)
        )
        assert answer.hits[0].id == "p02"
        assert answer.hits[0].score == pytest.approx(1.0, abs=1e-3)


async def test_an_empty_index_answers_with_no_hits(landseer, picture):
    request = search_pb2.SearchRequest(image=picture(), expansion=LATTQE, reranking=COATTENTION)
    answer = await landseer.search.Search(request)
    assert not answer.hits
    assert answer.index_size == 0


async def test_a_region_is_searched_for_alone(landseer, picture):
    await fill(landseer, picture, 3)
    region = common_pb2.Box(x=0, y=0, width=48, height=32)
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(1), region=region, explain=True))
    assert answer.query_explanation.region == region
    assert (answer.query_explanation.width, answer.query_explanation.height) == (96, 64)
    box = answer.query_explanation.boxes[0].box
    assert (box.x, box.y, box.width, box.height) == pytest.approx((12, 8, 24, 16), abs=0.5)


async def test_coattention_sorts_the_candidates_and_the_rest_follows(landseer, picture):
    await fill(landseer, picture)
    reranking = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, candidates=5)
    plain = await landseer.search.Search(search_pb2.SearchRequest(image=picture(4), **PLAIN))
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(4), reranking=reranking))
    assert {hit.id for hit in answer.hits[:5]} == {hit.id for hit in plain.hits[:5]}
    assert [hit.id for hit in answer.hits[5:]] == [hit.id for hit in plain.hits[5:]]
    assert all(hit.scores.HasField("coattention") == (place < 5) for place, hit in enumerate(answer.hits))
    first = answer.hits[0].scores
    # Half of each, unless a request says otherwise.
    assert answer.hits[0].score == pytest.approx((first.coattention + getattr(first, "global")) / 2)
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert [model.name for model in answer.model_versions] == ["backbone", "cluster", "coattention"]
    assert landseer.triton.calls[-1].shapes["candidate_counts"] == (1, 10)


async def test_weight_zero_changes_nothing(landseer, picture):
    await fill(landseer, picture)
    reranking = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, weight=0.0)
    plain = await landseer.search.Search(search_pb2.SearchRequest(image=picture(4), **PLAIN))
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(4), reranking=reranking))
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in plain.hits]


async def test_expansion_searches_again_with_the_neighbours(landseer, picture):
    await fill(landseer, picture)
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(4), expansion=LATTQE, **PLAIN))
    assert list(answer.untrained) == ["lattqe"]
    assert {"expand", "research"} <= {timing.stage for timing in answer.timings}
    assert all(hit.scores.HasField("expanded") and hit.scores.HasField("global") for hit in answer.hits)
    assert [hit.score for hit in answer.hits] == [hit.scores.expanded for hit in answer.hits]
    call = landseer.triton.calls[-1]
    assert call.shapes["neighbours"] == (1, 8, SIZES.channels)
    assert not any(hit.HasField("explanation") for hit in answer.hits)


async def test_explain_tells_how_likely_neighbours_show_the_same_thing(landseer, picture):
    await fill(landseer, picture)
    expansion = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, neighbours=3, allow_untrained=True)
    request = search_pb2.SearchRequest(image=picture(4), expansion=expansion, explain=True)
    answer = await landseer.search.Search(request)
    told = [hit.explanation.relevance for hit in answer.hits if hit.explanation.HasField("relevance")]
    assert told == [0.5] * 3  # what the fake network says of each


async def test_an_untrained_detector_affects_only_answers_with_boxes(picture, start, fake_triton):
    fake_triton.profile = replace(fake_triton.profile, untrained=("attention", "detector", "lattqe"))
    landseer = await start()
    await fill(landseer, picture, count=2)
    for explain, expected in ((False, []), (True, ["attention", "detector"])):
        answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(1), explain=explain))
        assert list(answer.untrained) == expected


@pytest.mark.parametrize("method", ["AQE", "AQEWD", "AQEWD_DIR", "ALPHA_QE", "DQE"])
async def test_classical_expansion_is_computed_here_and_needs_no_model(landseer, picture, method):
    await fill(landseer, picture)
    before = landseer.triton.calls[-1]
    expansion = search_pb2.Expansion(method=f"EXPANSION_METHOD_{method}", neighbours=3)
    plain = await landseer.search.Search(search_pb2.SearchRequest(id="p04", top_k=5, **PLAIN))
    answer = await landseer.search.Search(search_pb2.SearchRequest(id="p04", top_k=5, expansion=expansion, **PLAIN))
    assert landseer.triton.calls[-1] is before
    assert not answer.degradations and "lattqe" not in answer.untrained
    assert {"expand", "research"} <= {timing.stage for timing in answer.timings}
    assert "p04" not in [hit.id for hit in answer.hits]

    stored = {}
    for seed in range(12):
        got = await landseer.index.Get(index_pb2.GetRequest(id=f"p{seed:02}", include_vectors=True))
        stored[got.id] = np.array(got.descriptor, np.float32)
    query, ids = stored["p04"], [hit.id for hit in plain.hits]
    others = {id: vector for id, vector in stored.items() if id != "p04"}
    neighbours = np.stack([stored[id] for id in ids[:3]])
    lowest = np.stack(sorted(others.values(), key=lambda vector: vector @ query)[:NEGATIVES])
    name = {"ALPHA_QE": "alphaqe", "AQEWD_DIR": "aqewd-dir"}.get(method, method.lower())
    expanded = classical(name, query, neighbours, alpha=3.0, lowest=lowest)
    expected = sorted(others, key=lambda id: -float(others[id] @ expanded))[:5]
    assert [hit.id for hit in answer.hits] == expected
    for hit in answer.hits:
        assert hit.scores.expanded == pytest.approx(float(others[hit.id] @ expanded), abs=1e-3)


async def test_explain_shows_where_one_looked(landseer, picture):
    await fill(landseer, picture, 3)
    request = search_pb2.SearchRequest(image=picture(1), reranking=COATTENTION, explain=True)
    answer = await landseer.search.Search(request)
    explanation = answer.hits[0].explanation
    assert explanation.thumbnail.startswith(b"\xff\xd8")
    assert (explanation.coattention.height, explanation.coattention.width) == (16, 24)
    assert max(explanation.coattention.values) == pytest.approx(1.0)
    assert sum(explanation.cluster_weights) == pytest.approx(1.0, abs=1e-5)
    assert len(explanation.boxes) == 1
    assert answer.query_explanation.thumbnail.startswith(b"\xff\xd8")
    assert (answer.query_explanation.attention.height, answer.query_explanation.attention.width) == (3, 4)


async def test_only_the_needed_outputs_are_requested(landseer, picture):
    await landseer.search.Search(search_pb2.SearchRequest(image=picture()))
    await landseer.search.Search(search_pb2.SearchRequest(image=picture(), explain=True))
    await landseer.put(a=picture())
    brief, explained, indexed = landseer.triton.calls[-3:]
    assert (brief.model, set(brief.outputs)) == ("describe", {"descriptor", "query_vector"})
    assert explained.model == "describe_full"
    assert not any(name.startswith("local") or name == "clusters" for name in explained.outputs)
    assert not {"local_features", "attention"} & set(indexed.outputs)


async def test_coattention_of_an_indexed_picture_scores_as_with_the_picture_itself(landseer, picture):
    await landseer.put(**{name: picture(seed) for seed, name in enumerate("abcdef")})
    by_id = await landseer.search.Search(search_pb2.SearchRequest(id="c", reranking=COATTENTION))
    by_picture = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2), reranking=COATTENTION))
    expected = {hit.id: hit.scores.coattention for hit in by_picture.hits if hit.id != "c"}
    assert {hit.id: hit.scores.coattention for hit in by_id.hits} == pytest.approx(expected, abs=2e-3)
    assert len(expected) == 5


async def test_describe_gives_unit_vectors_and_whole_picture_boxes(landseer, picture):
    answer = await landseer.search.Describe(search_pb2.DescribeRequest(image=picture()))
    assert np.linalg.norm(answer.descriptor.values) == pytest.approx(1.0, abs=1e-4)
    assert len(answer.clusters) == SIZES.clusters
    assert (answer.width, answer.height) == (96, 64)
    box = answer.boxes[0].box
    assert (box.x, box.y, box.width, box.height) == pytest.approx((24, 16, 48, 32), abs=0.5)
    assert {model.name for model in answer.model_versions} == {"backbone", "detector", "cluster"}


async def test_upsert_replaces_and_counts(landseer, picture):
    one = await landseer.index.Upsert(
        index_pb2.UpsertRequest(picture=index_pb2.Picture(id="a", image=picture(1), metadata={"title": "one"}))
    )
    two = await landseer.index.Upsert(index_pb2.UpsertRequest(picture=index_pb2.Picture(id="a", image=picture(2))))
    assert (one.replaced, two.replaced) == (False, True)
    assert two.sequence == one.sequence + 1
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(1), **PLAIN))
    assert [hit.id for hit in answer.hits] == ["a"]
    assert answer.hits[0].score < 0.99
    assert not answer.hits[0].metadata


async def test_delete_takes_a_picture_out(landseer, picture, rich):
    await fill(landseer, picture, 3)
    answer = await landseer.index.Delete(index_pb2.DeleteRequest(id="p01"))
    assert answer.sequence == 4
    hits = (await landseer.search.Search(search_pb2.SearchRequest(image=picture(1)))).hits
    assert sorted(hit.id for hit in hits) == ["p00", "p02"]
    for call in (
        landseer.index.Delete(index_pb2.DeleteRequest(id="p01")),
        landseer.index.Get(index_pb2.GetRequest(id="p01")),
        landseer.search.Search(search_pb2.SearchRequest(id="p01")),
    ):
        with pytest.raises(AioRpcError) as caught:
            await call
        assert (rich(caught.value).code.name, rich(caught.value).reason) == ("NOT_FOUND", "NOT_INDEXED")


async def test_get_and_stats_describe_the_index(landseer, picture):
    await fill(landseer, picture, 2)
    got = await landseer.index.Get(index_pb2.GetRequest(id="p01"))
    assert (got.width, got.height, got.sequence, got.cluster_count) == (96, 64, 2, SIZES.clusters)
    assert got.thumbnail.startswith(b"\xff\xd8")
    assert not got.descriptor
    stats = await landseer.index.Stats(index_pb2.StatsRequest())
    assert (stats.pictures, stats.sequence, stats.descriptor_size, stats.max_top_k) == (2, 2, SIZES.channels, 50)
    assert stats.last_change.seconds >= got.indexed_at.seconds > 1_600_000_000
    assert list(stats.untrained) == ["lattqe"]
    assert {model.name for model in stats.model_versions} == set(GRAPHS)


async def test_no_thumbnails_if_so_configured(start, picture):
    landseer = await start(thumbnails=False)
    await landseer.put(a=picture())
    assert (await landseer.index.Get(index_pb2.GetRequest(id="a"))).thumbnail == b""


async def test_pictures_outlive_the_process(start, picture):
    first = await start()
    await fill(first, picture, 3)
    await first.server.stop(0.0)
    second = await start()
    answer = await second.search.Search(search_pb2.SearchRequest(image=picture(2)))
    assert answer.hits[0].id == "p02"


async def test_reflection_names_the_services(landseer):
    stub = reflection_pb2_grpc.ServerReflectionStub(landseer.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answers = [answer async for answer in call]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"landseer.v1.SearchService", "landseer.v1.IndexService", "grpc.health.v1.Health"} <= names
