"""One trace from the Python client through the orchestrator into the real Triton, and a log that names it."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from collector import Collector
from stack.photos import wheel
from stack.servers import Landseer, within

from landseer.client import BlockingSearchClient
from landseer.client.span_exporter import shut_down, tracer_provider
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.triton import TritonConfig, TritonServer

pytestmark = pytest.mark.stack

COFFEE = wheel("coffee.png")
RPC = "landseer.v1.SearchService/Search"


class HttpCollector:
    """Takes Triton's spans, which come as JSON over HTTP."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        spans = self.spans

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                scopes = [scope for resource in told["resourceSpans"] for scope in resource["scopeSpans"]]
                spans.extend(span for scope in scopes for span in scope["spans"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    running = Collector()
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield running
    running.close()


@pytest.fixture
def http_collector() -> Iterator[HttpCollector]:
    running = HttpCollector()
    yield running
    running.close()


def test_one_trace_from_the_client_into_triton(repository, collector, http_collector, tmp_path, monkeypatch):
    listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    lines: list[str] = []
    with TritonServer(TritonConfig(repository=repository, traces=http_collector.url)) as triton:
        triton.wait_ready()
        orchestrator = Orchestrator(
            OrchestratorConfig(
                listen=listen,
                triton=triton.grpc_url,
                store=tmp_path / "store",
                metrics=metrics,
                extra_args=("--log-format", "json", "--log-level", "debug"),
                on_line=lines.append,
            )
        )
        try:
            orchestrator.start()
            orchestrator.wait_ready()
            with program(listen, monkeypatch) as client:
                client.upsert("coffee", COFFEE)
                # Triton sends its spans every few seconds, and at times keeps the last ones until others follow.
                within(40, lambda: bool(client.search(COFFEE).hits and complete(http_collector)), pause=0.5)
            with closing(Landseer(listen, f"http://{metrics}/metrics")) as handle:
                assert handle.serving()
        finally:
            assert orchestrator.stop() == 0, "it ends well, and sends its last spans"

    trace = complete(http_collector)
    [theirs, ours] = sorted((span for span in collector.named(RPC) if span.trace == trace), key=lambda span: -span.kind)
    assert (theirs.service, ours.service, ours.parent) == ("a program", "landseer", theirs.id)
    mine = {span.name: span for span in collector.spans if span.trace == trace and span is not theirs}
    stages = {"decode", "describe", "keypoints", "search", "words", "rerank", "expand", "research", "store"}
    assert set(mine) == {RPC, "triton describe", "triton lattqe", *stages}
    assert mine["describe"].parent == ours.id
    assert mine["triton describe"].parent == mine["describe"].id
    # Once, though LAttQE expands the query and then verified hits are added.
    assert [span.id for span in collector.named("expand") if span.trace == trace] == [mine["triton lattqe"].parent]

    inside = [span for span in http_collector.spans if span["traceId"] == trace]
    entries = [span for span in inside if span["parentSpanId"] not in {other["spanId"] for other in inside}]
    # Triton may not have sent LAttQE's yet.
    parents = [entry["parentSpanId"] for entry in entries]
    assert parents.count(mine["triton describe"].id) == 1
    assert set(parents) <= {mine["triton describe"].id, mine["triton lattqe"].id}
    assert not [span for span in collector.spans if "ealth" in span.name or "Ready" in span.name]

    told = [json.loads(line) for line in lines if trace in line]
    assert {one["request_id"] for one in told} == {ours.attributes["landseer.request_id"]}
    assert any(one["message"].startswith(f"{RPC}: OK after") for one in told)


def complete(collector: HttpCollector) -> str | None:
    """Return a trace of which the ensemble `describe` and the backbone below it have arrived."""
    names: dict[str, set[str]] = {}
    for span in list(collector.spans):
        names.setdefault(span["traceId"], set()).add(span["name"])
    return next((trace for trace, seen in names.items() if {"InferRequest", "describe", "backbone"} <= seen), None)


@contextmanager
def program(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingSearchClient]:
    """A client in a program that traces what it does."""
    provider = tracer_provider("a program")
    with monkeypatch.context() as patch, BlockingSearchClient(server, timeout=60.0) as client:
        patch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
        yield client
    shut_down(provider)
