"""Triton failing, slow, unavailable and back; deadlines; cancelled calls."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time

import grpc
import pytest
from fake_triton import PROFILE, free_port
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2

from landseer.ensemble.api.health import SERVICES
from landseer.ensemble.config import NONE, ServerConfig
from landseer.v1 import index_pb2, search_pb2

FULL_ANSWER = {
    "expansion": search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, neighbours=3, allow_untrained=True),
    "reranking": search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION),
}
SEARCH = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}


async def until(condition, timeout_s=30.0):
    """Wait for an async condition and return how long it took."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() - started < timeout_s
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def fill(landseer, picture):
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(5)})


@pytest.mark.parametrize(
    ("code", "message", "expected", "reason"),
    [
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", "RESOURCE_EXHAUSTED", "OVERLOADED"),
        ("UNAVAILABLE", "Request timeout expired", "RESOURCE_EXHAUSTED", "OVERLOADED"),
        ("UNAVAILABLE", "Request for unknown model: 'describe' is not ready", "UNAVAILABLE", "MODELS_UNAVAILABLE"),
        ("NOT_FOUND", "Request for unknown model: 'describe' is not found", "UNAVAILABLE", "MODELS_UNAVAILABLE"),
        ("INVALID_ARGUMENT", "unexpected shape for input", "INTERNAL", "INFERENCE_FAILED"),
        ("INTERNAL", "onnx runtime error", "INTERNAL", "INFERENCE_FAILED"),
        ("INTERNAL", "Received RST_STREAM with error code 2", "UNAVAILABLE", "MODELS_UNAVAILABLE"),
    ],
)
async def test_errors_of_triton_are_named(landseer, picture, rich, code, message, expected, reason):
    landseer.triton.failures["describe"] = (grpc.StatusCode[code], message)
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(search_pb2.SearchRequest(image=picture()))
    error = rich(caught.value)
    assert (error.code.name, error.reason) == (expected, reason)
    assert (error.retry_s is not None) == (reason in ("OVERLOADED", "MODELS_UNAVAILABLE"))
    assert landseer.metric("landseer_stage_errors_total", stage="describe", reason=reason) == 1


@pytest.mark.parametrize(("model", "stage"), [("lattqe", "expand"), ("coattention", "rerank")])
async def test_an_optional_stage_that_fails_is_left_out(landseer, picture, model, stage):
    await fill(landseer, picture)
    landseer.triton.failures[model] = (grpc.StatusCode.INTERNAL, "broken")
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2), **FULL_ANSWER))
    assert [degradation.stage for degradation in answer.degradations] == [stage]
    assert answer.degradations[0].reason.startswith("INFERENCE_FAILED: ")
    assert len(answer.hits) == 5
    assert model not in {served.name for served in answer.model_versions}
    assert landseer.metric("landseer_degraded_total", stage=stage) == 1


async def test_a_slow_optional_stage_is_skipped_in_time(start, picture):
    # Seconds to answer in, on a busy machine too.
    landseer = await start(answer_reserve_s=3.0)
    await fill(landseer, picture)
    landseer.triton.delays["coattention"] = 30.0
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2), **FULL_ANSWER), timeout=6.0)
    assert {one.stage: one.seconds for one in answer.timings}["total"] < 6.0
    assert [degradation.stage for degradation in answer.degradations] == ["rerank"]
    assert answer.degradations[0].reason.startswith("DEADLINE: ")
    assert answer.hits[0].scores.HasField("expanded")
    await until(lambda: _returns(landseer.triton.cancelled == ["coattention"]))


async def _returns(value):
    return value


async def test_the_remaining_deadline_is_passed_to_triton(landseer, picture):
    await landseer.search.Search(search_pb2.SearchRequest(image=picture()), timeout=60.0)
    call = landseer.triton.calls[-1]
    assert 30.0 < call.time_remaining < 60.1
    assert 30_000_000 < call.timeout_us < 60_100_000


async def test_triton_is_told_of_no_time_of_day(start, picture):
    """The clocks of two machines differ; what our backend is told holds by ours alone."""
    landseer = await start(local_features=NONE)
    before = time.monotonic_ns() // 1000
    for _ in range(2):
        await landseer.search.Search(search_pb2.SearchRequest(image=picture()), timeout=60.0)
    told = [call.timeout.split() for call in landseer.triton.calls]
    sent = [int(one[1]) for one in told]
    assert before < sent[0] < sent[1] < time.monotonic_ns() // 1000
    assert all(30_000_000 < int(one[2]) < 60_100_000 for one in told)
    assert told[0][0] == told[1][0]


async def test_a_deadline_that_passes_ends_the_call_at_triton(start, picture):
    landseer = await start(local_features=NONE)
    # The first one takes longest to come to Triton.
    await landseer.search.Search(search_pb2.SearchRequest(image=picture()))
    landseer.triton.delays["describe"] = 30.0

    def handled(*codes):
        return sum(landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code=code) for code in codes)

    for tried in (1, 2, 3):
        with pytest.raises(AioRpcError) as caught:
            await landseer.search.Search(search_pb2.SearchRequest(image=picture()), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda tried=tried: _returns(landseer.triton.cancelled == ["describe"] * tried))
        await until(lambda tried=tried: _returns(handled("DEADLINE_EXCEEDED", "CANCELLED") == tried))
        # The caller's clock began before the server's: on a busy machine it may hang up first.
        if handled("DEADLINE_EXCEEDED"):
            break
    assert handled("DEADLINE_EXCEEDED") == 1


async def test_a_cancelled_call_cancels_running_and_waiting_work(start, picture):
    landseer = await start(threads=1)
    landseer.triton.delays["describe"] = 30.0
    calls = [landseer.search.Search(search_pb2.SearchRequest(image=picture())) for _ in range(3)]
    await until(lambda: _returns(len(landseer.triton.calls) == 3))
    for call in calls:
        call.cancel()
    await until(lambda: _returns(len(landseer.triton.cancelled) == 3))
    await until(lambda: _returns(landseer.metric("grpc_server_handled_total", **SEARCH, grpc_code="CANCELLED") == 3))
    assert landseer.metric("grpc_server_in_flight", **SEARCH) == 0


async def test_health_follows_triton(landseer, picture, rich):
    await fill(landseer, picture)
    assert all([await landseer.serving(service) for service in SERVICES])
    await landseer.triton.stop()
    # Sooner than a check that gets no answer ends.
    assert await until(lambda: _not(landseer.serving())) < 10.0
    started = time.monotonic()
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(search_pb2.SearchRequest(image=picture()))
    error = rich(caught.value)
    assert time.monotonic() - started < 2.0
    assert (error.code.name, error.reason, error.retry_s) == ("UNAVAILABLE", "MODELS_UNAVAILABLE", 2.0)
    await landseer.triton.start()
    await until(landseer.serving)
    assert (await landseer.search.Search(search_pb2.SearchRequest(image=picture(2)))).hits[0].id == "p2"


async def _not(condition):
    return not await condition


async def test_a_triton_that_hangs_counts_as_lost(start, caplog):
    landseer = await start(poll_timeout_s=ServerConfig.poll_timeout_s)
    landseer.triton.delays["ModelReady"] = 60.0
    with caplog.at_level(logging.INFO):
        took = await until(lambda: _not(landseer.serving()))
    assert took + 0.1 > 3 * ServerConfig.poll_timeout_s
    # At the third it is lost.
    missed = [one.getMessage() for one in caplog.records if "check of Triton missed" in one.getMessage()]
    assert [said.partition(" in a row")[0][-6:] for said in missed] == ["1 of 3", "2 of 3"]
    landseer.triton.delays.clear()
    await until(landseer.serving)


async def test_requests_without_models_work_without_triton(landseer, picture):
    await fill(landseer, picture)
    await landseer.triton.stop()
    await until(lambda: _not(landseer.serving()))
    assert (await landseer.index.Get(index_pb2.GetRequest(id="p1"))).id == "p1"
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).pictures == 5
    answer = await landseer.search.Search(search_pb2.SearchRequest(id="p1", expansion=FULL_ANSWER["expansion"]))
    assert len(answer.hits) == 4
    assert [degradation.stage for degradation in answer.degradations] == ["expand"]
    await landseer.index.Delete(index_pb2.DeleteRequest(id="p1"))


async def test_it_starts_before_triton_and_waits_for_its_models(start, fake_triton, picture, rich):
    await fake_triton.stop()
    landseer = await start(wait=False)
    assert not await landseer.serving()
    with pytest.raises(AioRpcError) as caught:
        await landseer.index.Stats(index_pb2.StatsRequest())
    assert rich(caught.value).reason == "MODELS_UNAVAILABLE"
    fake_triton.ready = False
    await fake_triton.start()
    await asyncio.sleep(1.0)
    assert not await landseer.serving()
    fake_triton.ready = True
    await landseer.server.ready(60.0)
    assert await landseer.serving()


async def test_it_stops_promptly_at_any_moment_of_looking_for_triton(start, fake_triton):
    await fake_triton.stop()
    for step in range(15):
        landseer = await start(wait=False, poll_s=0.01, listen=f"127.0.0.1:{free_port()}")
        await asyncio.sleep(step * 0.002)
        stopping = asyncio.create_task(landseer.server.stop(0.0))
        done, _ = await asyncio.wait({stopping}, timeout=3.0)
        assert done


async def test_other_models_are_refused_until_the_former_return(landseer, picture, rich):
    await fill(landseer, picture)
    landseer.triton.profile = dataclasses.replace(PROFILE, weights_sha256="1" * 64)
    await until(lambda: _not(landseer.serving()))
    for call in (
        landseer.search.Search(search_pb2.SearchRequest(image=picture())),
        landseer.search.Search(search_pb2.SearchRequest(id="p1")),
        landseer.index.Upsert(index_pb2.UpsertRequest(picture=index_pb2.Picture(id="a", image=picture()))),
    ):
        with pytest.raises(AioRpcError) as caught:
            await call
        assert (rich(caught.value).code.name, rich(caught.value).reason) == ("FAILED_PRECONDITION", "PROFILE_MISMATCH")
    landseer.triton.profile = PROFILE
    await until(landseer.serving)


async def test_health_is_watched_until_the_end(landseer):
    first = landseer.health.Watch(health_pb2.HealthCheckRequest(service=""))
    second = landseer.health.Watch(health_pb2.HealthCheckRequest(service="landseer.v1.SearchService"))
    assert (await first.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert (await second.read()).status == health_pb2.HealthCheckResponse.SERVING
    first.cancel()
    stopping = asyncio.create_task(landseer.server.stop(5.0))
    assert (await second.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await second.read() is grpc.aio.EOF
    await asyncio.wait_for(stopping, 3.0)


async def test_health_of_an_unknown_service(landseer):
    with pytest.raises(AioRpcError) as caught:
        await landseer.serving("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_stopping_lets_running_requests_finish(landseer, picture):
    await fill(landseer, picture)
    landseer.triton.delays["describe"] = 0.6
    call = asyncio.ensure_future(landseer.search.Search(search_pb2.SearchRequest(image=picture(1))))
    await until(lambda: _returns(len(landseer.triton.calls) == 6))
    await landseer.server.stop(5.0)
    assert (await call).hits[0].id == "p1"


async def test_a_stage_that_fails_unexpectedly_is_left_out(start, picture, monkeypatch):
    landseer = await start(local_features=NONE)
    await fill(landseer, picture)
    collection = landseer.server._readiness.collection()

    async def broken(*_):
        raise ValueError("nobody expected this")

    monkeypatch.setattr(collection, "clusters", broken)
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2), **FULL_ANSWER))
    assert [degradation.stage for degradation in answer.degradations] == ["rerank"]
    assert answer.degradations[0].reason.startswith("UNEXPECTED: unexpected error; see the server's log for request ")
    assert [len(answer.hits), answer.hits[0].id] == [5, "p2"]


@pytest.mark.parametrize(("model", "stage"), [("coattention", "rerank"), ("lattqe", "expand")])
async def test_an_optional_model_that_is_not_loaded_costs_its_stage_alone(landseer, picture, model, stage):
    await fill(landseer, picture)
    landseer.triton.unloaded.add(model)
    await asyncio.sleep(0.3)  # three checks
    assert await landseer.serving()
    answer = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2), **FULL_ANSWER))
    assert len(answer.hits) == 5
    assert [one.stage for one in answer.degradations] == [stage]


async def test_models_replaced_between_two_checks_describe_nothing_for_the_store(start, picture, rich):
    landseer = await start(poll_s=60.0, local_features=NONE)
    await landseer.put(before=picture(1))
    # Triton now serves other models, and the next regular check is a minute away.
    landseer.triton.profile = dataclasses.replace(PROFILE, weights_sha256="9" * 64, version="2")
    landseer.triton.version = "2"
    request = index_pb2.UpsertRequest(picture=index_pb2.Picture(id="after", image=picture(2)))
    with pytest.raises(AioRpcError) as caught:
        await landseer.index.Upsert(request)
    assert (rich(caught.value).reason, rich(caught.value).retry_s) == ("MODELS_UNAVAILABLE", 2.0)

    async def known():
        with pytest.raises(AioRpcError) as caught:
            await landseer.index.Upsert(request)
        return rich(caught.value).reason == "PROFILE_MISMATCH"

    await until(known)
    assert landseer.metric("landseer_index_pictures") == 1
