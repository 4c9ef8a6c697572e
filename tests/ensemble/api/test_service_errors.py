"""Bad requests over real gRPC: code, field and reason, and nothing else breaks."""

from __future__ import annotations

import math

import pytest
from fake_triton import SIZES
from grpc.aio import AioRpcError

from landseer.v1 import common_pb2, index_pb2, search_pb2

Search = search_pb2.SearchRequest
VALUES = [1.0] * SIZES.channels


def descriptor(values):
    return search_pb2.Descriptor(values=values)


BAD_SEARCHES = {
    "no query": (Search(), "query"),
    "no bytes": (Search(image=b""), "image"),
    "no picture": (Search(image=b"not a picture at all"), "image"),
    "empty id": (Search(id=""), "id"),
    "long id": (Search(id="x" * 100_000), "id"),
    "control characters": (Search(id="\n" * 400), "id"),
    "short descriptor": (Search(descriptor=descriptor(VALUES[1:])), "descriptor.values"),
    "long descriptor": (Search(descriptor=descriptor([*VALUES, 1.0])), "descriptor.values"),
    "zero descriptor": (Search(descriptor=descriptor([0.0] * SIZES.channels)), "descriptor.values"),
    "NaN": (Search(descriptor=descriptor([math.nan, *VALUES[1:]])), "descriptor.values"),
    "infinity": (Search(descriptor=descriptor([*VALUES[1:], math.inf])), "descriptor.values"),
    "top_k 0": (Search(descriptor=descriptor(VALUES), top_k=0), "top_k"),
    "top_k too large": (Search(descriptor=descriptor(VALUES), top_k=51), "top_k"),
    "no neighbours": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(neighbours=0)),
        "expansion.neighbours",
    ),
    "too many neighbours": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(neighbours=1001)),
        "expansion.neighbours",
    ),
    "more neighbours than LAttQE has positions": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=2, neighbours=65)),
        "expansion.neighbours",
    ),
    "more neighbours than the rank curve has": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=8, neighbours=65)),
        "expansion.neighbours",
    ),
    "more neighbours than an SVM takes": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=7, neighbours=65)),
        "expansion.neighbours",
    ),
    "negative alpha": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=6, alpha=-1.0)),
        "expansion.alpha",
    ),
    "alpha that is no number": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=6, alpha=math.nan)),
        "expansion.alpha",
    ),
    "unknown expansion": (
        Search(descriptor=descriptor(VALUES), expansion=search_pb2.Expansion(method=9)),
        "expansion.method",
    ),
    "no candidates": (
        Search(descriptor=descriptor(VALUES), reranking=search_pb2.Reranking(candidates=0)),
        "reranking.candidates",
    ),
    "too many candidates": (
        Search(descriptor=descriptor(VALUES), reranking=search_pb2.Reranking(candidates=1001)),
        "reranking.candidates",
    ),
    "weight above 1": (
        Search(descriptor=descriptor(VALUES), reranking=search_pb2.Reranking(weight=1.5)),
        "reranking.weight",
    ),
    "weight NaN": (
        Search(descriptor=descriptor(VALUES), reranking=search_pb2.Reranking(weight=math.nan)),
        "reranking.weight",
    ),
    "unknown re-ranking": (
        Search(descriptor=descriptor(VALUES), reranking=search_pb2.Reranking(method=9)),
        "reranking.method",
    ),
    "co-attention without a picture": (
        Search(
            descriptor=descriptor(VALUES),
            reranking=search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION),
        ),
        "reranking.method",
    ),
    "region of a descriptor": (
        Search(descriptor=descriptor(VALUES), region=common_pb2.Box(width=1, height=1)),
        "region",
    ),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
async def test_a_bad_search_names_its_field(landseer, rich, picture, name):
    request, field = BAD_SEARCHES[name]
    await landseer.put(a=picture())
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(request)
    error = rich(caught.value)
    assert (error.code.name, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_INPUT", [field])
    assert error.message.startswith(f"{field}: ")
    assert len(error.message) <= 600
    assert (await landseer.search.Search(Search(image=picture()))).hits


@pytest.mark.parametrize(
    "box",
    [
        common_pb2.Box(),
        common_pb2.Box(x=90, y=0, width=20, height=20),
        common_pb2.Box(x=-1, y=0, width=20, height=20),
        common_pb2.Box(x=0, y=0, width=-5, height=20),
        common_pb2.Box(x=math.nan, y=0, width=20, height=20),
        common_pb2.Box(x=0, y=0, width=math.inf, height=20),
    ],
)
async def test_a_region_must_lie_in_the_picture(landseer, rich, picture, box):
    for call in (
        landseer.search.Search(Search(image=picture(), region=box)),
        landseer.search.Describe(search_pb2.DescribeRequest(image=picture(), region=box)),
    ):
        with pytest.raises(AioRpcError) as caught:
            await call
        assert rich(caught.value).fields == ["region"]


async def test_upsert_names_the_fields_of_its_picture(landseer, rich, picture):
    bad = {
        "picture.id": index_pb2.Picture(id="", image=picture()),
        "picture.image": index_pb2.Picture(id="a", image=picture()[:300]),
        "picture.metadata": index_pb2.Picture(id="a", image=picture(), metadata={"a": "x" * 70_000}),
    }
    for field, value in bad.items():
        with pytest.raises(AioRpcError) as caught:
            await landseer.index.Upsert(index_pb2.UpsertRequest(picture=value))
        assert rich(caught.value).fields == [field]
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).pictures == 0


async def test_limits_are_those_of_the_configuration(start, rich, picture):
    from landseer.ensemble.config import Limits

    landseer = await start(limits=Limits(max_bytes=100_000, max_pixels=10_000))
    for image in (b"\xff\xd8" * 60_000, picture(width=200, height=100)):
        with pytest.raises(AioRpcError) as caught:
            await landseer.search.Search(Search(image=image))
        assert rich(caught.value).fields == ["image"]
    for reason in ("bytes", "pixels"):
        assert landseer.metric("landseer_decode_failures_total", reason=reason) == 1


async def test_untrained_expansion_needs_consent(landseer, rich, picture):
    await landseer.put(a=picture())
    expansion = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE)
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(Search(image=picture(), expansion=expansion))
    error = rich(caught.value)
    assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_UNTRAINED")
    assert "allow_untrained" in error.message and "never trained" in error.message
    expansion.method = search_pb2.EXPANSION_METHOD_RANK_CURVE
    answer = await landseer.search.Search(Search(image=picture(), expansion=expansion))
    assert not answer.untrained and not answer.degradations and answer.hits[0].scores.HasField("expanded")


async def test_a_full_store_takes_no_more_and_index_and_store_agree(start, rich, picture):
    landseer = await start(store_limit_bytes=2**20)
    with pytest.raises(AioRpcError) as caught:
        for seed in range(60):
            full = index_pb2.Picture(id=f"p{seed}", image=picture(seed), metadata={"notes": "x" * 50_000})
            await landseer.index.Upsert(index_pb2.UpsertRequest(picture=full))
    assert (rich(caught.value).code.name, rich(caught.value).reason) == ("RESOURCE_EXHAUSTED", "STORE_FULL")
    stats = await landseer.index.Stats(index_pb2.StatsRequest())
    answer = await landseer.search.Search(Search(image=picture(3), top_k=50))
    assert stats.pictures == answer.index_size == landseer.metric("landseer_index_pictures") > 0
    assert answer.hits[0].id == "p3"
    await landseer.index.Delete(index_pb2.DeleteRequest(id="p0"))


async def test_an_unexpected_error_is_internal_without_details(landseer, rich, picture, monkeypatch):
    from landseer.ensemble.api import service

    def broken(*args, **kwargs):
        raise RuntimeError("secret path /etc/landseer")

    monkeypatch.setattr(service, "search_plan", broken)
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(Search(image=picture()))
    error = rich(caught.value)
    assert (error.code.name, error.reason) == ("INTERNAL", "UNEXPECTED")
    assert "secret" not in error.message
    assert error.info["request_id"] in error.message
    method = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}
    assert landseer.metric("grpc_server_handled_total", **method, grpc_code="INTERNAL") == 1
    assert landseer.metric("grpc_server_in_flight", **method) == 0
