"""Traces the client's calls in programs that use OpenTelemetry; does nothing, and imports nothing, in others.

A program that wants traces imports OpenTelemetry and sets a tracer provider, as applications do. The `landseer`
command sets one itself if the environment enables traces: see `exporting`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)
API = "opentelemetry.trace"
ASKING = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")
"""OpenTelemetry's standard variables; any of them turns tracing on."""
MISSING = "is set, but OpenTelemetry is not installed; pip install 'landseer[trace]'"


def asked_by(environ: Mapping[str, str]) -> str | None:
    """Return the variable that turns traces on; None if there is none, or if another turns them off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return next((name for name in ASKING if environ.get(name)), None)


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Send the spans of this process, if the environment turns traces on and OpenTelemetry is installed."""
    asking = asked_by(os.environ)
    if asking is None:
        yield
        return
    try:
        from landseer.client import span_exporter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("%s %s", asking, MISSING)
        yield
        return
    with span_exporter.as_global(service):
        yield


@contextmanager
def call(method: str) -> Iterator[dict[str, str]]:
    """Trace a call of a landseer.v1 `method`, such as SearchService/Search. Yields the metadata for the server's trace.

    Makes no span if the application has not loaded OpenTelemetry or if `method` is empty.
    """
    if not method or API not in sys.modules:
        yield {}
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    service, _, name = f"landseer.v1.{method}".partition("/")
    with trace.get_tracer("landseer.client").start_as_current_span(
        f"{service}/{name}",
        kind=trace.SpanKind.CLIENT,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        metadata: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(metadata)
        try:
            yield metadata
        except BaseException as error:
            _end(span, error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.CANCELLED)
            raise
        _end(span, grpc.StatusCode.OK)


def _end(span: Span, code: grpc.StatusCode) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(StatusCode.ERROR, code.name)
