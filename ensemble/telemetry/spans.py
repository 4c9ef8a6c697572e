"""Spans of RPCs, stages and calls of Triton, with OpenTelemetry. Needs the extra `trace`.

We use OpenTelemetry's API instead of opentelemetry-instrumentation-grpc. Its server half, tried in version 0.66b2:

- A handler cancelled by the client's deadline, or failing with an unexpected exception, ends as status 0 (OK), without
  an error.
- Every abort and exception becomes two span events, with the exception's message. Messages may quote the request, so
  our spans hold only the reason.
- Spans are named `/service/method`, one slash more than those of the client.
- All releases are betas.

Attributes and status follow OpenTelemetry's conventions for RPC.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from landseer.client.span_exporter import shut_down, tracer_provider
from landseer.ensemble.errors import reason_of
from landseer.ensemble.telemetry.tracing import Metadata, RpcSpan, Tracing

MOST = 500
"""Most spans below one RPC. A search has about ten; a long upload would flood its trace."""
_W3C = TraceContextTextMapPropagator()
_OUR_FAULT = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
"""Codes that mark a server's span as an error, by OpenTelemetry's conventions."""


class _Rpc(RpcSpan):
    """A recorded RPC, and the number of spans below it."""

    def __init__(self, span: Span) -> None:
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self._span = span
        self._begun = 0

    def takes(self) -> bool:
        """Return whether one more span may start."""
        self._begun += 1
        return self._begun <= MOST

    def ends(self, code: grpc.StatusCode) -> None:
        """Record the status, and how many spans were dropped."""
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if self._begun > MOST:
            self._span.set_attribute("landseer.spans_left_out", self._begun - MOST)
        if code in _OUR_FAULT:
            self._span.set_status(StatusCode.ERROR, code.name)


_RPC: ContextVar[_Rpc | None] = ContextVar("landseer_rpc_span", default=None)


class Spans(Tracing):
    """Records spans and sends them to the endpoint that the environment configures."""

    def __init__(self) -> None:
        self._provider = tracer_provider("landseer")
        self._tracer = self._provider.get_tracer("landseer.ensemble")

    @contextmanager
    def rpc(self, service: str, method: str, metadata: Metadata, request_id: str) -> Iterator[RpcSpan]:
        """Open a span for an RPC, below the caller's span if `traceparent` names one."""
        with self._tracer.start_as_current_span(
            f"{service}/{method}",
            context=_W3C.extract(_headers(metadata), context=Context()),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "landseer.request_id": request_id,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            rpc = _Rpc(span)
            _RPC.set(rpc)
            yield rpc

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Open a span for a stage. `total` is the RPC itself and gets none."""
        if stage == "total" or not _takes():
            yield
            return
        with self._child(stage, SpanKind.INTERNAL, {}):
            yield

    @contextmanager
    def triton(self, model: str) -> Iterator[dict[str, str]]:
        """Open a span for a call of Triton; Triton's own spans, if enabled, go below it."""
        headers: dict[str, str] = {}
        if not _takes():
            _W3C.inject(headers)
            yield headers
            return
        service, method = "inference.GRPCInferenceService", "ModelInfer"
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "landseer.model": model}
        with self._child(f"triton {model}", SpanKind.CLIENT, attributes):
            _W3C.inject(headers)
            yield headers

    def close(self) -> None:
        """Send the remaining spans."""
        shut_down(self._provider)

    @contextmanager
    def _child(self, name: str, kind: SpanKind, attributes: dict[str, str]) -> Iterator[None]:
        """Open a child span. On errors it records only the reason: messages may quote the request."""
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", reason_of(error))
                span.set_status(StatusCode.ERROR, reason_of(error))
                raise


def _takes() -> bool:
    """Return whether to open a span: only below an RPC that has not reached its limit."""
    rpc = _RPC.get()
    return rpc is not None and rpc.takes()


def _headers(metadata: Metadata) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str) and key in _W3C.fields}
