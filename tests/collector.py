"""A collector of traces: OpenTelemetry's own protocol over gRPC, on a free port, keeping what comes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span as it arrived."""

    name: str
    service: str
    trace: str
    id: str
    parent: str
    kind: int
    failed: bool
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self._more = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(None)

    def Export(self, request: Any, context: Any) -> Any:
        with self._more:
            for resource in request.resource_spans:
                service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_seen(span, service) for span in scope.spans]
            self._more.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, *, within_s: float = 10.0) -> Seen:
        """Wait for the one span of a name."""
        until = time.monotonic() + within_s
        with self._more:
            while not self.named(name):
                assert self._more.wait(until - time.monotonic()), f"no {name} among {[x.name for x in self.spans]}"
        [span] = self.named(name)
        return span


def _seen(span: Any, service: str) -> Seen:
    return Seen(
        name=span.name,
        service=service,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes={one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
    )
