from __future__ import annotations

import itertools
import urllib.request

import pytest
from fake_triton import free_port

from landseer.ensemble.telemetry.metrics import SEARCH_OBJECTIVE_S, SECONDS, Metrics
from landseer.ensemble.telemetry.metrics_server import MetricsServer
from landseer.v1 import search_pb2


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_buckets_are_geometric_and_one_ends_at_the_objective():
    assert SEARCH_OBJECTIVE_S in SECONDS
    assert {later / earlier for earlier, later in itertools.pairwise(SECONDS)} == {2.0}


def test_a_taken_port_is_said_in_one_line():
    port = free_port()
    server = MetricsServer(Metrics(), f"127.0.0.1:{port}")
    try:
        with pytest.raises(OSError, match=r"cannot serve metrics on 127.0.0.1:\d+: .*--metrics"):
            MetricsServer(Metrics(), f"127.0.0.1:{port}")
    finally:
        server.close()


async def test_a_search_shows_in_the_metrics(start, picture):
    import asyncio

    landseer = await start(metrics=f"127.0.0.1:{free_port()}")
    await landseer.put(a=picture())
    await landseer.search.Search(search_pb2.SearchRequest(image=picture()))
    text = await asyncio.to_thread(scrape, landseer.server.metrics_port)
    lines = text.splitlines()
    method = 'grpc_method="Search",grpc_service="landseer.v1.SearchService"'
    assert f"grpc_server_handling_seconds_count{{{method}}} 1.0" in lines
    assert f'grpc_server_handled_total{{grpc_code="OK",{method}}} 1.0' in lines
    assert f"grpc_server_in_flight{{{method}}} 0.0" in lines
    assert 'landseer_stage_duration_seconds_count{stage="search"} 1.0' in lines
    assert 'landseer_model_info{model="backbone",version="1"} 1.0' in lines
    assert "landseer_index_pictures 1.0" in lines
    assert "landseer_serving 1.0" in lines
    assert any(line.startswith("landseer_store_bytes ") and float(line.split()[1]) > 0 for line in lines)
