"""Handles on running servers, and what tests ask of them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as tritonclient
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import np_to_triton_dtype

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.run.triton import TritonServer
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2_grpc

DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a failed call says."""

    code: str
    message: str
    reason: str
    fields: list[str]
    retry_s: float | None


def refusal(error: grpc.RpcError) -> Refusal:
    """Take the google.rpc.Status of a failed call apart."""
    packed = dict(error.trailing_metadata() or ()).get(DETAILS, b"")
    status = status_pb2.Status.FromString(packed)
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_s = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(
        code=error.code().name,
        message=error.details() or "",
        reason=info.reason,
        fields=[violation.field for violation in bad.field_violations],
        retry_s=retry_s,
    )


class Landseer:
    """A running orchestrator: plain stubs, the client, health and metrics."""

    def __init__(self, address: str, metrics: str) -> None:
        self.address, self.metrics_address = address, metrics
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        # Let no test wait for gRPC's growing pauses between attempts to connect again.
        again = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        self.channel = grpc.insecure_channel(address, options=[*limits, *again])
        self.search = search_pb2_grpc.SearchServiceStub(self.channel)
        self.index = index_pb2_grpc.IndexServiceStub(self.channel)
        self.client = BlockingSearchClient(address, timeout=60.0)

    def close(self) -> None:
        self.client.close()
        self.channel.close()

    def serving(self, service: str = "") -> bool:
        """Whether health says SERVING."""
        try:
            stub = health_pb2_grpc.HealthStub(self.channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2.0)
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def put(self, pictures: Mapping[str, bytes | Path], **metadata: str) -> None:
        """Index pictures by id, in one stream; every one must be taken."""

        def contents(image: bytes | Path) -> bytes:
            return image.read_bytes() if isinstance(image, Path) else image

        stream = [index_pb2.Picture(id=id, image=contents(image), metadata=metadata) for id, image in pictures.items()]
        answer = self.client.upsert_many(stream)
        assert not answer.failures, answer.failures
        assert answer.indexed == len(pictures)

    def refused(self, call: Callable[..., Any], request: Any, *, timeout: float = 30.0) -> Refusal:
        """Make a call that must fail and return what it says."""
        try:
            answer = call(request, timeout=timeout)
        except grpc.RpcError as error:
            return refusal(error)
        raise AssertionError(f"answered instead of failing: {str(answer)[:500]}")

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of /metrics, 0 where it is not there."""
        return sample(self.metrics_address, name, **labels)

    def in_flight(self) -> float:
        """Searches being answered, by the orchestrator's own gauge."""
        return self.metric("grpc_server_in_flight", grpc_service="landseer.v1.SearchService", grpc_method="Search")

    def searches(self) -> float:
        """How many searches have been answered, by the orchestrator's own counter."""
        handled = [
            sample.value
            for family in scrape(self.metrics_address)
            for sample in family.samples
            if sample.name == "grpc_server_handled_total" and sample.labels["grpc_method"] == "Search"
        ]
        return sum(handled)


class TritonClient:
    """A running Triton, asked directly."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self.client = tritonclient.InferenceServerClient(server.grpc_url)

    def close(self) -> None:
        self.client.close()

    def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] = (), **more: Any
    ) -> dict[str, NDArray[Any]]:
        """Run one inference; return the outputs asked for, or all."""
        asked = [tritonclient.InferRequestedOutput(name) for name in outputs] or None
        result = self.client.infer(model, tensors(inputs), outputs=asked, **more)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    def counts(self, model: str, *, reaching: int = 0) -> tuple[int, int]:
        """Return how many inferences and how many executions a model has had.

        Triton books an execution when it has ended, a moment after its answers went out: so wait, 10 s at most, for
        as many inferences as were asked for, and until the counts stay.
        """
        seen, end = (-1, -1), time.monotonic() + 10
        while True:
            [found] = self.client.get_inference_statistics(model).model_stats
            now = (found.inference_count, found.execution_count)
            if (now == seen and now[0] >= reaching) or time.monotonic() > end:
                return now
            seen = now
            time.sleep(0.25)

    def pending(self, model: str) -> float:
        """Requests that wait in a model's queue, by Triton's metrics."""
        return sample(self.server.metrics_url, "nv_inference_pending_request_count", model=model, version="1")

    def refused(self, model: str, reason: str) -> float:
        """Requests that a model's backend answered with an error, by Triton's metrics."""
        labels = {"model": model, "reason": reason, "version": "1"}
        return sample(self.server.metrics_url, "landseer_triton_refused_total", **labels)


def tensors(inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Return the inputs of a request to Triton."""
    made = []
    for name, array in inputs.items():
        tensor = tritonclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def scrape(address: str) -> list[Any]:
    """Return the metric families at a Prometheus address."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def sample(address: str, name: str, **labels: str) -> float:
    """Return the one sample of that name and labels, 0 where it is not there."""
    for family in scrape(address):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return float(found.value)
    return 0.0


def within(seconds: float, condition: Callable[[], bool], pause: float = 0.05) -> float:
    """Wait until a condition holds and return how long that took; AssertionError after `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not so within {seconds:g} s"
        time.sleep(pause)
    return time.monotonic() - began


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row of a with the same row of b."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
