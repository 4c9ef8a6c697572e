"""Sets up the OpenTelemetry SDK from its standard environment variables. Needs the extra `trace`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

PATIENCE_S = 3.0
"""Longest wait at exit for a collector to accept the last spans."""


def tracer_provider(service: str) -> TracerProvider:
    """Return a provider that sends spans in batches. Raises ValueError if the environment names another exporter.

    Endpoint, headers, sampler, batching and resource come from the environment; `service` is the default service name.
    """
    defaults = Resource.create({"service.name": service, "service.version": metadata.version("landseer")})
    provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def shut_down(provider: TracerProvider) -> None:
    """Send the remaining spans within PATIENCE_S: an unreachable collector must not delay the exit."""
    ending = threading.Thread(target=provider.shutdown, name="landseer-traces-end", daemon=True)
    ending.start()
    ending.join(PATIENCE_S)


@contextmanager
def as_global(service: str) -> Iterator[None]:
    """Make a provider the process's global one while the block runs. OpenTelemetry allows this only once."""
    provider = tracer_provider(service)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        shut_down(provider)


def _exporter() -> SpanExporter:
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if wanted == "console":
        return ConsoleSpanExporter()
    if wanted != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER is {wanted!r}; expected otlp, console or none")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "grpc"):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; expected grpc, a collector's port 4317")
    return OTLPSpanExporter()
