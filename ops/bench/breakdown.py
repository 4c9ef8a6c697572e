"""Where the time of one served request goes: Triton's own statistics, next to the graph in process."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from landseer.ops.bench.contenders import Caller
from landseer.ops.bench.pictures import Picture
from landseer.ops.bench.served import TritonDescribe

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
"""The parts of a request that Triton measures."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Triton's counters since it started."""

    ensemble: tuple[int, int]
    """Number of requests to `describe`, and their total nanoseconds."""
    backbone: Mapping[str, tuple[int, int]]
    """The same for the backbone, by `PARTS`."""
    inferences: int
    """Number of inferences of the backbone."""
    executions: int
    """Number of executions; smaller than `inferences` if requests were batched."""

    def since(self, before: Counters) -> Counters:
        """Return the difference to `before`."""
        return self._joined(before, operator.sub)

    def plus(self, more: Counters) -> Counters:
        """Return the sum of both."""
        return self._joined(more, operator.add)

    def _joined(self, other: Counters, how: Callable[[int, int], int]) -> Counters:
        def both(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
            return how(one[0], two[0]), how(one[1], two[1])

        return Counters(
            ensemble=both(self.ensemble, other.ensemble),
            backbone={part: both(self.backbone[part], other.backbone[part]) for part in PARTS},
            inferences=how(self.inferences, other.inferences),
            executions=how(self.executions, other.executions),
        )


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Mean milliseconds per request, with one caller."""

    client: float
    """Measured by the caller."""
    graph: float
    """Running the graph in process on the same picture, just before."""
    ensemble: float
    """From when Triton receives the request until it answers."""
    backbone: Mapping[str, float]
    """By `PARTS`."""

    @property
    def rows(self) -> list[tuple[str, float]]:
        """The parts, which sum to `client`."""
        parts = self.backbone
        return [
            ("the graph itself, as in process", self.graph),
            ("our Python backend and its process: shared memory, Python", parts["compute_infer"] - self.graph),
            ("Triton: input and output tensors", parts["compute_input"] + parts["compute_output"]),
            ("Triton: the backbone's queue", parts["queue"]),
            ("Triton: the ensemble around it", self.ensemble - sum(parts.values())),
            ("gRPC and the client: serialising, sending, receiving", self.client - self.ensemble),
        ]


def breakdown(served: TritonDescribe, graph: Caller, requests: Sequence[Picture]) -> Breakdown:
    """Send each request once and run it in process just before."""
    inside = outside = 0.0
    before = counters(served.client)
    for request in requests:
        began = time.perf_counter()
        graph(request)
        between = time.perf_counter()
        served(request)
        inside, outside = inside + between - began, outside + time.perf_counter() - between
    spent = counters(served.client).since(before)
    return mean(spent, graph_s=inside, client_s=outside, requests=len(requests))


def mean(spent: Counters, *, graph_s: float, client_s: float, requests: int) -> Breakdown:
    """Turn sums into means, in milliseconds. Triton counts late, after the answer, so divide by its own count."""
    return Breakdown(
        client=client_s / requests * 1e3,
        graph=graph_s / requests * 1e3,
        ensemble=_ms(spent.ensemble),
        backbone={part: _ms(spent.backbone[part]) for part in PARTS},
    )


def counters(client: Any) -> Counters:
    """Read Triton's counters."""
    [ensemble] = client.get_inference_statistics("describe").model_stats
    [backbone] = client.get_inference_statistics("backbone").model_stats
    success, parts = ensemble.inference_stats.success, backbone.inference_stats
    return Counters(
        ensemble=(success.count, success.ns),
        backbone={part: (getattr(parts, part).count, getattr(parts, part).ns) for part in PARTS},
        inferences=backbone.inference_count,
        executions=backbone.execution_count,
    )


def _ms(counted: tuple[int, int]) -> float:
    return counted[1] / max(counted[0], 1) / 1e6
