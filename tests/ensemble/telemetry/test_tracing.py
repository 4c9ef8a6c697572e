"""Traces from a client through the orchestrator to (a stand-in for) Triton, as a collector receives them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import grpc
import pytest
from collector import Collector
from grpc_health.v1 import health_pb2

from landseer.client import SearchClient
from landseer.ensemble.app.server import start_server
from landseer.ensemble.telemetry import spans
from landseer.ensemble.telemetry.tracing import OFF, Tracing, tracing_by_environment
from landseer.v1 import index_pb2, search_pb2

Search = search_pb2.SearchRequest
SERVER, CLIENT = 2, 3
"""Kinds, as the protocol numbers them."""
RPC = "landseer.v1.SearchService/Search"
PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
COATTENTION = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, candidates=2)


@pytest.fixture
def collector():
    running = Collector()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without the machine's own settings, and without waiting."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.fixture
async def traced(fake_triton, config, collector, monkeypatch):
    """A server that traces, and a channel."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    server = await start_server(config, tracing_by_environment())
    await server.ready(60.0)
    yield server
    await server.stop(0.0)


async def put(server, **pictures):
    async with SearchClient(server.address) as client:
        for id, image in pictures.items():
            await client.upsert(id, image)


async def search(server, request, **metadata):
    from landseer.v1 import search_pb2_grpc

    async with grpc.aio.insecure_channel(server.address) as channel:
        call = search_pb2_grpc.SearchServiceStub(channel).Search(request, metadata=tuple(metadata.items()))
        await call
        return await call.trailing_metadata()


async def arrived(collector, name):
    return await asyncio.to_thread(collector.one, name)


async def test_one_trace_from_the_caller_to_triton(traced, collector, fake_triton, picture):
    await put(traced, a=picture(1), b=picture(2))
    fake_triton.calls.clear()
    await search(traced, Search(image=picture(1), reranking=COATTENTION), traceparent=PARENT)
    rpc = await arrived(collector, RPC)
    mine = {span.name: span for span in collector.spans if span.trace == "ab" * 16}
    assert set(mine) == {
        RPC,
        "decode",
        "describe",
        "triton describe",
        "search",
        "rerank",
        "triton coattention",
        "store",
    }
    assert (rpc.trace, rpc.parent, rpc.kind, rpc.service) == ("ab" * 16, "cd" * 8, SERVER, "landseer")
    assert rpc.attributes["rpc.service"] == "landseer.v1.SearchService"
    assert (rpc.attributes["rpc.system"], rpc.attributes["rpc.method"]) == ("grpc", "Search")
    assert rpc.attributes["rpc.grpc.status_code"] == 0
    for stage in ("decode", "describe", "search", "rerank", "store"):
        assert mine[stage].parent == rpc.id, stage
    for model, stage in {"describe": "describe", "coattention": "rerank"}.items():
        span = mine[f"triton {model}"]
        assert (span.parent, span.kind) == (mine[stage].id, CLIENT)
        [call] = [call for call in fake_triton.calls if call.model == model]
        assert call.traceparent == f"00-{rpc.trace}-{span.id}-01"


async def test_the_python_client_begins_the_trace_if_the_application_traces(traced, collector, picture, monkeypatch):
    from landseer.client.span_exporter import shut_down, tracer_provider

    provider = tracer_provider("my-application")
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    async with SearchClient(traced.address) as client:
        assert await client.ready()
        await client.upsert("a", picture())
        await client.upsert_many([index_pb2.Picture(id="b", image=picture(2))])
        with pytest.raises(Exception, match="nowhere"):
            await client.search("nowhere")
    shut_down(provider)
    await traced.stop(0.0)
    for name, code in {"IndexService/Upsert": 0, "IndexService/UpsertMany": 0, "SearchService/Search": 5}.items():
        [theirs, ours] = sorted(collector.named(f"landseer.v1.{name}"), key=lambda span: -span.kind)
        assert (theirs.kind, theirs.service, ours.kind, ours.service) == (CLIENT, "my-application", SERVER, "landseer")
        assert (theirs.trace, theirs.id) == (ours.trace, ours.parent)
        assert theirs.attributes["rpc.grpc.status_code"] == ours.attributes["rpc.grpc.status_code"] == code
        assert (theirs.failed, ours.failed) == (code != 0, False), "NOT_FOUND is no fault of the server's"
    assert not [span for span in collector.spans if "ealth" in span.name]


async def test_health_reflection_and_looks_at_triton_leave_no_span(traced, collector, fake_triton):
    from grpc_health.v1 import health_pb2_grpc
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
    from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

    async with grpc.aio.insecure_channel(traced.address) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        async for _ in ServerReflectionStub(channel).ServerReflectionInfo(iter([ServerReflectionRequest()])):
            break
    await asyncio.sleep(0.3)
    await traced.stop(0.0)
    assert collector.spans == []


async def test_a_failed_rpc_is_marked_and_quotes_nothing_of_the_request(traced, collector, fake_triton, picture):
    fake_triton.failures["describe"] = (grpc.StatusCode.INTERNAL, "broken by 5ecret")
    with pytest.raises(grpc.aio.AioRpcError):
        await search(traced, Search(image=picture()), traceparent=PARENT, authorization="5ecret")
    rpc = await arrived(collector, RPC)
    assert rpc.failed and rpc.attributes["rpc.grpc.status_code"] == 13
    for name in ("describe", "triton describe"):
        [span] = collector.named(name)
        assert span.failed and span.attributes["error.type"] == "INFERENCE_FAILED"
    assert "5ecret" not in str(collector.spans)


async def test_an_unsampled_trace_is_passed_on_but_not_recorded(traced, collector, fake_triton, picture):
    await search(traced, Search(image=picture()), traceparent=PARENT[:-1] + "0")
    await traced.stop(0.0)
    assert collector.spans == []
    assert (
        fake_triton.calls[-1].traceparent.startswith("00-" + "ab" * 16) and fake_triton.calls[-1].traceparent[-1] == "0"
    )


async def test_a_long_stream_does_not_bury_its_trace(traced, collector, fake_triton, picture, monkeypatch):
    monkeypatch.setattr(spans, "MOST", 7)
    async with SearchClient(traced.address) as client:
        await client.upsert_many([index_pb2.Picture(id=str(n), image=picture(n)) for n in range(10)])
    rpc = await arrived(collector, "landseer.v1.IndexService/UpsertMany")
    await traced.stop(0.0)
    assert len([span for span in collector.spans if span.trace == rpc.trace]) == 1 + 7
    assert rpc.attributes["landseer.spans_left_out"] == 10 * 4 - 7, "decode, keypoints, describe and the call of Triton"
    assert all(call.traceparent for call in fake_triton.calls)


async def test_the_log_names_the_trace_and_the_trace_the_request(traced, collector, caplog, picture):
    from landseer.ensemble.telemetry.request_id import ANSWERING

    seen = []
    caplog.handler.addFilter(lambda record: seen.append(ANSWERING.get()) or True)
    caplog.set_level("DEBUG")
    await search(traced, Search(image=picture()), traceparent=PARENT, **{"x-request-id": "mine"})
    rpc = await arrived(collector, RPC)
    assert rpc.attributes["landseer.request_id"] == "mine"
    assert ("mine", "ab" * 16) in {(one.request_id, one.trace_id) for one in seen if one}


async def test_without_configuration_nothing_is_traced(start, fake_triton, picture):
    assert tracing_by_environment() is OFF
    landseer = await start()
    await landseer.search.Search(Search(image=picture()), metadata=[("traceparent", PARENT)])
    assert fake_triton.calls[-1].traceparent == ""


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_the_standard_variables_decide(variables, on, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing = tracing_by_environment()
    assert (tracing is not OFF) is on
    tracing.close()


@pytest.mark.parametrize(
    "variables", [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}]
)
def test_unsupported_exporters_are_rejected(variables, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"expected (otlp|grpc)"):
        tracing_by_environment()


def test_without_the_packages_one_warning_names_the_extra(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("landseer.ensemble.telemetry.spans", "landseer.client.span_exporter"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing_by_environment() is OFF
    [record] = caplog.records
    assert record.getMessage().startswith("OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed")
    assert "landseer[trace]" in record.getMessage()


def test_an_unreachable_collector_delays_nothing(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("landseer.client.span_exporter.PATIENCE_S", 0.3)
    tracing = tracing_by_environment()
    with tracing.rpc("s", "m", [], "r") as span:
        span.ends(grpc.StatusCode.OK)
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < 5.0


def test_off_costs_next_to_nothing():
    tracing: Tracing = OFF
    began = time.thread_time()
    for _ in range(1000):
        with tracing.rpc("s", "m", (), "r") as span:
            for _ in range(7):
                with tracing.stage("decode"), tracing.triton("describe"):
                    pass
            span.ends(grpc.StatusCode.OK)
    assert (time.thread_time() - began) / 1000 < 100e-6, "seconds for all the spans of a search; about 3e-6"


def test_the_orchestrator_needs_no_opentelemetry():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import landseer.ensemble.app.server, landseer.client.client, landseer.client.commands.search"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def run_command(server, *arguments, **variables):
    command = [sys.executable, "-m", "landseer.client.cli", *arguments, "--server", server.address]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors
    return errors.decode()


async def test_the_command_begins_a_trace_too(traced, collector):
    assert "OTEL" not in await run_command(traced, "stats")
    await traced.stop(0.0)
    [theirs, ours] = sorted(collector.named("landseer.v1.IndexService/Stats"), key=lambda span: -span.kind)
    assert (theirs.service, ours.service) == ("landseer-client", "landseer")
    assert (theirs.trace, theirs.id) == (ours.trace, ours.parent)


async def test_the_command_works_while_the_collector_is_away(traced):
    began = time.monotonic()
    await run_command(traced, "stats", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert time.monotonic() - began < 20
