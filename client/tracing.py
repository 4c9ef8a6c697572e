"""Spans of the client's calls, for programs that use OpenTelemetry; nothing, not even an import, for the others.

A program that wants traces has imported OpenTelemetry and set its tracer provider, as that library expects of
applications. The `landseer` command has nobody to do so, and does it itself if the environment asks: see `exporting`.
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
"""OpenTelemetry's own variables; any of them turns tracing on."""
MISSING = "asks for traces, but OpenTelemetry is not installed; pip install 'landseer[trace]'"


def asked_by(environ: Mapping[str, str]) -> str | None:
    """Return the variable that asks for traces; None if there is none, or if another one forbids them."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return next((name for name in ASKING if environ.get(name)), None)


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Record the spans of this process and send them, if the environment asks for it and OpenTelemetry is installed."""
    asking = asked_by(os.environ)
    if asking is None:
        yield
        return
    try:
        from landseer.client import exporter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("%s %s", asking, MISSING)
        yield
        return
    with exporter.as_global(service):
        yield


@contextmanager
def call(method: str) -> Iterator[dict[str, str]]:
    """Trace a call of `method`, such as SearchService/Search, of landseer.v1. Gives the metadata that tell the server.

    A span only if this process records any, which is the application's to configure, and the method has a name.
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
