"""Metrics of a running orchestrator."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.rpc import code_pb2
from plain import PLAIN

from landseer.v1 import index_pb2, search_pb2

Search = search_pb2.SearchRequest
LATTQE = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, neighbours=2, allow_untrained=True)
COATTENTION = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, candidates=2)


async def test_searches_are_counted_by_query_expansion_and_reranking(start, picture):
    landseer = await start()
    await landseer.put(a=picture(1), b=picture(2), c=picture(3))
    await landseer.search.Search(Search(image=picture(1), top_k=2, **PLAIN))
    await landseer.search.Search(Search(id="a", top_k=2, expansion=LATTQE, reranking=COATTENTION))
    counted = lambda **labels: landseer.metric("landseer_searches_total", **labels)  # noqa: E731
    assert counted(query="image", expansion="none", reranking="none") == 1
    assert counted(query="id", expansion="lattqe", reranking="coattention") == 1
    assert counted(query="image", expansion="none", reranking="spatial") == 0
    for ranking, times in {"global": 2, "expanded": 1, "coattention": 1}.items():
        assert landseer.metric("landseer_top_score_count", ranking=ranking) == times
    assert landseer.metric("landseer_top_score_bucket", ranking="global", le="0.9") == 1, "a finds itself, c not a"
    for stage in ("expand", "rerank"):
        assert landseer.metric("landseer_hits_kept_ratio_count", stage=stage) == 1
        assert 0 <= landseer.metric("landseer_hits_kept_ratio_sum", stage=stage) <= 1


async def test_a_search_by_default_is_counted_with_its_words_and_verification(start, picture):
    landseer = await start()
    await landseer.put(a=picture(1), b=picture(2), c=picture(3))
    await landseer.search.Search(Search(image=picture(1), top_k=2))
    assert landseer.metric("landseer_searches_total", query="image", expansion="verified", reranking="spatial") == 1
    for ranking, times in {"global": 1, "words": 1, "expanded": 1}.items():
        assert landseer.metric("landseer_top_score_count", ranking=ranking) == times
    for stage in ("rerank", "expand"):
        assert landseer.metric("landseer_hits_kept_ratio_count", stage=stage) == 1
    for stage, times in {"keypoints": 4, "words": 1, "search": 1, "rerank": 1, "research": 1, "via": 1}.items():
        assert landseer.metric("landseer_stage_duration_seconds_count", stage=stage) == times


async def test_calls_of_triton_are_counted_by_outcome(start, picture):
    landseer = await start()
    await landseer.put(a=picture())
    await landseer.search.Search(Search(image=picture()))
    counted = lambda model, outcome: landseer.metric("landseer_triton_requests_total", model=model, outcome=outcome)  # noqa: E731
    assert (counted("describe_full", "OK"), counted("describe", "OK")) == (1, 1)
    assert landseer.metric("landseer_triton_request_duration_seconds_count", model="describe") == 1
    landseer.triton.failures["describe"] = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(grpc.aio.AioRpcError):
        await landseer.search.Search(Search(image=picture()))
    assert counted("describe", "INFERENCE_FAILED") == 1
    assert landseer.metric("landseer_triton_in_flight") == 0


async def test_indexed_and_deleted_pictures_are_counted(start, picture):
    before = time.time()
    landseer = await start()
    assert landseer.metric("landseer_index_change_timestamp_seconds") == 0
    assert before <= landseer.metric("landseer_index_built_timestamp_seconds") <= time.time()
    await landseer.put(a=picture(1), b=picture(2))
    await landseer.put(a=picture(3))
    await landseer.index.Delete(index_pb2.DeleteRequest(id="b"))
    many = [index_pb2.Picture(id="c", image=picture(4)), index_pb2.Picture(id="d", image=b"no picture")]
    answer = await landseer.index.UpsertMany(index_pb2.UpsertManyRequest(picture=one) for one in many)
    assert [failure.code for failure in answer.failures] == [code_pb2.INVALID_ARGUMENT]
    for outcome, times in {"added": 3, "replaced": 1, "deleted": 1, "refused": 1}.items():
        assert landseer.metric("landseer_ingested_pictures_total", outcome=outcome) == times, outcome
    assert landseer.metric("landseer_write_batch_size_sum") == 5
    assert before <= landseer.metric("landseer_index_change_timestamp_seconds") <= time.time()
    assert landseer.metric("landseer_decode_failures_total", reason="format") == 1


async def test_searches_per_pass_of_the_index_are_observed(start, picture):
    landseer = await start()
    await landseer.put(a=picture())
    await landseer.search.Search(Search(id="a"))
    assert landseer.metric("landseer_search_batch_size_sum") == 1


async def test_rejected_requests_are_counted(start, picture):
    landseer = await start(in_flight=1, waiting=1)
    await landseer.put(a=picture())
    gate = landseer.triton.gates["describe"] = asyncio.Event()
    calls = [landseer.search.Search(Search(image=picture())) for _ in range(4)]
    while landseer.metric("landseer_shed_total", lane="search", reason="full") < 2:
        await asyncio.sleep(0.01)
    gate.set()
    codes = [await call.code() for call in calls]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 2
    assert landseer.metric("landseer_shed_total", lane="search", reason="full") == 2
    for name in ("landseer_waiting", "landseer_admitted"):
        assert landseer.metric(name, lane="search") == 0
    assert (landseer.metric("landseer_open_calls"), landseer.metric("landseer_bytes_in_flight")) == (0, 0)
