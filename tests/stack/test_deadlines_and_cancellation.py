"""What is no longer wanted is not worked on: cancelled calls and passed deadlines, down to Triton's queue."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from stack.photos import pixels_of, wheel
from stack.servers import within

from landseer.ensemble.config import ServerConfig
from landseer.v1 import search_pb2, search_pb2_grpc

pytestmark = pytest.mark.stack

COFFEE = wheel("coffee.png").read_bytes()
REQUEST = search_pb2.SearchRequest(image=COFFEE)
CALLS = 40
SEARCH = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}


@pytest.fixture
def quiet(landseer, triton):
    """Waits until nothing of earlier requests runs or waits, then returns how many the backbone has ended.

    Its queue is first in, first out: when a request of our own is answered, those before it have ended.
    """
    ours, image = 0, np.zeros((2, 64, 64, 3), np.uint8)

    def settle():
        nonlocal ours
        within(60, lambda: landseer.in_flight() == 0)
        others, known = -1, -2
        while others != known:
            triton.infer("backbone", {"image": image}, ["descriptor"])
            ours += len(image)
            known, others = others, triton.counts("backbone")[0] - ours
        return others

    return settle


@pytest.mark.parametrize("how", ["one after the other", "the connection"])
def test_cancelled_searches_are_dropped(landseer, triton, album, quiet, how):
    before = quiet()
    cancelled = landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code="CANCELLED")
    with grpc.insecure_channel(landseer.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        # A deadline that so many can meet, so that none is refused.
        calls = [stub.Search.future(REQUEST, timeout=600) for _ in range(CALLS)]
        within(20, lambda: landseer.in_flight() >= CALLS - 5)
        answered = sum(call.done() for call in calls)
        if how == "one after the other":
            for call in calls:
                call.cancel()
    # Long before Triton could have answered them all.
    within(1.5, lambda: landseer.in_flight() == 0)
    now = landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code="CANCELLED")
    assert now - cancelled >= CALLS - answered - ServerConfig.in_flight
    # Only what was with Triton already may still have run; what waited for its turn never got there.
    assert quiet() - before <= answered + 2 * ServerConfig.in_flight
    assert landseer.client.search(COFFEE, top_k=1).hits[0].id == "album/coffee.png"


def test_a_deadline_of_a_millisecond(landseer, album):
    for call in (landseer.search.Search, landseer.search.Describe):
        request = REQUEST if call == landseer.search.Search else search_pb2.DescribeRequest(image=COFFEE)
        for _ in range(5):
            assert landseer.refused(call, request, timeout=0.001).code == "DEADLINE_EXCEEDED"
    within(5, lambda: landseer.in_flight() == 0)
    assert landseer.client.search(COFFEE, top_k=1).hits


def test_a_deadline_that_passes_in_tritons_queue_is_not_run(landseer, triton, album, quiet):
    """Full batches, sent straight to Triton, keep it busy; the search that waits behind them gives up in time.

    Nothing can join a full batch, so all but the first are seen to wait.
    """
    # Tells our backend how long a request takes that does not wait.
    assert landseer.client.search(COFFEE, top_k=1).hits
    full = np.tile(pixels_of(wheel("retina.jpg"))[None, :512, :512], (8, 1, 1, 1))
    quiet()
    before = triton.refused("backbone", "late")
    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(triton.infer, "backbone", {"image": full}, ["descriptor"]) for _ in range(4)]
        within(20, lambda: triton.pending("backbone") > 0)
        began = time.monotonic()
        refusal = landseer.refused(landseer.search.Search, REQUEST, timeout=0.4)
        took = time.monotonic() - began
        assert all(one.result()["descriptor"].shape == (8, 1280) for one in asked)
    assert refusal.code == "DEADLINE_EXCEEDED"
    assert 0.3 < took < 1.5
    quiet()
    # Refused by the backend itself: the picture came to Triton's queue, and was not run.
    within(10, lambda: triton.refused("backbone", "late") == before + 1)
    assert landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code="DEADLINE_EXCEEDED") >= 1


def test_more_than_may_wait_is_turned_away_at_once(another, tmp_path):
    """One picture with Triton, two waiting: of more callers some are told to come back, and none is lost."""
    _, narrow = another(tmp_path / "store", "--in-flight", "1", "--queue", "2")
    narrow.put({"coffee": COFFEE})
    calls = [narrow.search.Search.future(REQUEST, timeout=60) for _ in range(24)]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) >= 3
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call in calls:
        if call.code() is grpc.StatusCode.OK:
            assert call.result().hits[0].id == "coffee"
    assert narrow.search.Search(REQUEST, timeout=60).hits
