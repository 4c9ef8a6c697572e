"""Searches and writes while Milvus, which has the vectors, is away."""

from __future__ import annotations

import grpc
import pytest
from fake_triton import free_port
from grpc.aio import AioRpcError
from plain import PLAIN

from landseer.ensemble.index import live_index
from landseer.v1 import search_pb2


async def test_a_search_without_milvus_is_by_words_and_says_so(start, picture, rich, monkeypatch):
    monkeypatch.setattr(live_index, "IDLE_S", 0.05)
    landseer = await start(engine=f"milvus://127.0.0.1:{free_port()}/pictures")
    assert await landseer.serving()
    await landseer.put(a=picture(0), b=picture(1))
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(1)))
    assert answer.hits[0].id == "b" and answer.index_size == 2
    skipped = {one.stage: one.reason for one in answer.degradations}
    assert skipped["search"].startswith("INDEX_UNAVAILABLE: Milvus at 127.0.0.1:")
    assert landseer.metric("landseer_degraded_total", stage="search") == 1
    with pytest.raises(AioRpcError) as failed:
        await landseer.search.Search(search_pb2.SearchRequest(image=picture(1), **PLAIN))
    told = rich(failed.value)
    assert (told.code, told.reason, told.retry_s) == (grpc.StatusCode.UNAVAILABLE, "INDEX_UNAVAILABLE", 2.0)
    assert landseer.metric("landseer_milvus_requests_total", call="connect", outcome="REFUSED") > 0
