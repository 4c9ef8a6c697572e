"""Every metric of the orchestrator, in one place.

Times are histograms in seconds with geometric buckets, each twice the previous one, and one bucket ends exactly at the
objective, so that `rate(..._bucket{le="0.5"}) / rate(..._count)` is the share of searches that met it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

log = logging.getLogger(__name__)
SEARCH_OBJECTIVE_S = 0.5
"""A search should take at most this many seconds. If you change it, change dashboards and alerts too."""
SECONDS = tuple(SEARCH_OBJECTIVE_S * 2.0**power for power in range(-9, 7))
"""Bucket bounds, from about 1 ms to 32 s."""
RPC = ("grpc_service", "grpc_method")
COUNTS = tuple(2.0**power for power in range(9))
"""Bucket bounds of batch sizes, 1 to 256."""
COSINES = (*(step / 20 for step in range(-4, 20)), 0.975, 0.99, 1.0)
"""Bucket bounds of scores; descriptors of photographs hardly ever have a negative cosine."""
BUILDING = tuple(2.0**power for power in range(15))
"""Bucket bounds in seconds, 1 s to 4.5 hours."""
SHARES = tuple(step / 10 for step in range(11))


@contextmanager
def only_metrics() -> Iterator[None]:
    """Log what fails within, and go on: no metric may decide a result. Cancelling still cancels."""
    try:
        yield
    except Exception:
        log.exception("metrics could not be updated; the results are not affected")


class Metrics:
    """All collectors, on a separate registry, so that two orchestrators can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        counter, gauge, seconds, sizes = self._counter, self._gauge, self._seconds, self._histogram

        self.handling = seconds("grpc_server_handling_seconds", "Time to answer an RPC.", RPC)
        self.handled = counter("grpc_server_handled", "RPCs answered, by gRPC status code.", (*RPC, "grpc_code"))
        self.in_flight = gauge("grpc_server_in_flight", "RPCs being answered.", RPC)

        self.stage = seconds("landseer_stage_duration_seconds", "Time spent in a stage of an answer.", ("stage",))
        self.stage_errors = counter(
            "landseer_stage_errors", "Stages that failed, by ErrorInfo reason.", ("stage", "reason")
        )
        self.degraded = counter("landseer_degraded", "Answers sent without an optional stage.", ("stage",))
        self.decode_failures = counter("landseer_decode_failures", "Pictures rejected, by reason.", ("reason",))
        self.searches = counter(
            "landseer_searches",
            "Searches answered, by kind of query, expansion and re-ranking.",
            ("query", "expansion", "reranking"),
        )
        self.top_score = sizes("landseer_top_score", "Score of the best hit, by ranking.", COSINES, ("ranking",))
        self.kept = sizes(
            "landseer_hits_kept_ratio",
            "Share of the top hits that a stage kept among the top hits.",
            SHARES,
            ("stage",),
        )

        self.triton = seconds("landseer_triton_request_duration_seconds", "Duration of a call to Triton.", ("model",))
        self.triton_requests = counter("landseer_triton_requests", "Calls to Triton, by outcome.", ("model", "outcome"))
        self.triton_in_flight = gauge("landseer_triton_in_flight", "Requests being processed by Triton.")
        self.milvus = seconds("landseer_milvus_request_duration_seconds", "Duration of a call to Milvus.", ("call",))
        self.milvus_requests = counter("landseer_milvus_requests", "Calls to Milvus, by outcome.", ("call", "outcome"))
        self.waiting = gauge("landseer_waiting", "Requests waiting for Triton or for the index, by lane.", ("lane",))
        self.admitted = gauge("landseer_admitted", "Requests let in and not yet answered, by lane.", ("lane",))
        self.expected = gauge(
            "landseer_expected_seconds", "Seconds after which the next request would be answered, by lane.", ("lane",)
        )
        self.shed = counter("landseer_shed", "Requests refused because of load, by reason.", ("lane", "reason"))
        self.open_calls = gauge("landseer_open_calls", "Calls that are open, streams included.")
        self.bytes_in_flight = gauge("landseer_bytes_in_flight", "Bytes of requests that are being answered.")

        self.pictures = gauge("landseer_index_pictures", "Pictures in the index.")
        self.index_changed = gauge(
            "landseer_index_change_timestamp_seconds", "When a picture was last indexed or deleted."
        )
        self.index_built = gauge("landseer_index_built_timestamp_seconds", "When the index was built from the store.")
        self.index_added = gauge("landseer_index_added", "Pictures that the main index lacks, as they came later.")
        self.index_tombstones = gauge("landseer_index_tombstones", "Pictures of the main index that were removed.")
        self.index_version = gauge("landseer_index_version", "Number of the index version that serves; 0 without one.")
        self.index_damaged = counter("landseer_index_damaged_versions", "Index versions that were found damaged.")
        self.index_merges = counter("landseer_index_merges", "Index versions built, by outcome.", ("outcome",))
        for outcome in ("done", "failed"):
            # From 0 on, or the first failure would be no increase.
            self.index_merges.labels(outcome)
        self.index_merge = sizes("landseer_index_merge_duration_seconds", "Time to build a version.", BUILDING)
        self.search_batch = sizes("landseer_search_batch_size", "Searches answered by one pass over the index.", COUNTS)
        self.write_batch = sizes("landseer_write_batch_size", "Changes written in one transaction.", COUNTS)
        self.ingested = counter(
            "landseer_ingested_pictures", "Pictures indexed, deleted or rejected, by outcome.", ("outcome",)
        )
        self.store_bytes = gauge("landseer_store_bytes", "Bytes that the store uses on disk.")
        self.store_limit = gauge("landseer_store_limit_bytes", "Most bytes that the store may use.")

        self.serving = gauge("landseer_serving", "1 if the health status is SERVING, else 0.")
        self.models = gauge("landseer_model_info", "1 for each model version served.", ("model", "version"))
        gauge("landseer_build_info", "1, with the running version.", ("version",)).labels(_version()).set(1)

    def show_models(self, versions: Iterable[tuple[str, str]]) -> None:
        """Set the served model versions, (name, version) pairs."""
        self.models.clear()
        for name, version in versions:
            self.models.labels(name, version).set(1)

    def _seconds(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
        return self._histogram(name, text, SECONDS, labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


def _version() -> str:
    try:
        return metadata.version("landseer")
    except metadata.PackageNotFoundError:  # run from a folder on the path, not installed
        return "unknown"
