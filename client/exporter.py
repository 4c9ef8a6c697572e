"""OpenTelemetry's SDK, set up by its own environment variables. Needs the extra `trace`."""

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
"""How long the end of a process waits for a collector to take the last spans."""


def tracer_provider(service: str) -> TracerProvider:
    """Return a provider that sends spans in batches. ValueError if the environment asks for what is not there.

    Endpoint, headers, sampler, batches and resource are the environment's; `service` is the name if it gives none.
    """
    defaults = Resource.create({"service.name": service, "service.version": metadata.version("landseer")})
    provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def shut_down(provider: TracerProvider) -> None:
    """Send what is left, within PATIENCE_S: a collector that is away holds nobody up."""
    ending = threading.Thread(target=provider.shutdown, name="landseer-traces-end", daemon=True)
    ending.start()
    ending.join(PATIENCE_S)


@contextmanager
def as_global(service: str) -> Iterator[None]:
    """Make a provider this process's own, for its last task: OpenTelemetry lets it be set once."""
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
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; expected grpc, on a collector's port 4317")
    return OTLPSpanExporter()
