"""Every metric of the orchestrator, in one place.

Times are histograms in seconds with geometric buckets, each twice the one before, laid so that one bucket ends exactly
at the objective. That way `rate(..._bucket{le="0.5"}) / rate(..._count)` is the share of searches that met it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from landseer.ensemble.config import split_address

SEARCH_OBJECTIVE_S = 0.5
"""A search should be answered within this many seconds. Move it here, and dashboards and alerts with it."""
SECONDS = tuple(SEARCH_OBJECTIVE_S * 2.0**power for power in range(-9, 7))
"""Bucket bounds, from about 1 ms to 32 s."""
RPC = ("grpc_service", "grpc_method")


class Metrics:
    """All collectors, on a registry of their own so that two orchestrators can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.handling = self._histogram("grpc_server_handling_seconds", "Time to answer an RPC.", RPC)
        self.handled = self._counter("grpc_server_handled", "RPCs answered, by gRPC status code.", (*RPC, "grpc_code"))
        self.in_flight = self._gauge("grpc_server_in_flight", "RPCs being answered.", RPC)
        self.stage = self._histogram("landseer_stage_duration_seconds", "Time in a stage of an answer.", ("stage",))
        self.stage_errors = self._counter(
            "landseer_stage_errors", "Stages that failed, by ErrorInfo reason.", ("stage", "reason")
        )
        self.degraded = self._counter(
            "landseer_degraded", "Answers given without a stage that was asked for.", ("stage",)
        )
        self.decode_failures = self._counter(
            "landseer_decode_failures", "Pictures refused, by the field at fault.", ("field",)
        )
        self.pictures = self._gauge("landseer_index_pictures", "Pictures in the index.")
        self.store_bytes = self._gauge("landseer_store_bytes", "Bytes that the store takes on disk.")
        self.store_limit = self._gauge("landseer_store_limit_bytes", "Most bytes that the store may take.")
        self.serving = self._gauge("landseer_serving", "1 if health says SERVING, 0 if not.")
        self.models = self._gauge("landseer_model_info", "1 for each model version served.", ("model", "version"))

    def show_models(self, versions: Iterable[tuple[str, str]]) -> None:
        """Replace the model versions shown by these (name, version) pairs."""
        self.models.clear()
        for name, version in versions:
            self.models.labels(name, version).set(1)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


class MetricsServer:
    """Serves the registry over HTTP from a thread of its own."""

    def __init__(self, metrics: Metrics, address: str) -> None:
        host, port = split_address(address)
        self._server: Any
        try:
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            said = f"cannot serve metrics on {address}: {error.strerror}; choose another with --metrics"
            raise OSError(said) from error

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
