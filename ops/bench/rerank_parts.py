"""Where the time of re-ranking goes, from the orchestrator's metrics and Triton's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landseer.ops.bench.breakdown import PARTS
from landseer.ops.watch.scrape import fetch

MODEL = "coattention"
CALL = "landseer_triton_request_duration_seconds"
STAGE = "landseer_stage_duration_seconds"


@dataclass(frozen=True, kw_only=True)
class RerankCounters:
    """Counters since the start: the number of re-rankings and their total seconds."""

    count: float
    stage: float
    """In the orchestrator, from reading the clusters until the scores are computed."""
    call: float
    """Part of `stage`: the call to Triton."""
    triton: float
    """Part of `call`: in Triton, from receiving the request until answering it."""
    parts: Mapping[str, float]
    """Parts of `triton`, by `PARTS`."""

    def rows_since(self, before: RerankCounters) -> list[tuple[str, float]]:
        """Return the mean ms of each part of a re-ranking since `before`; they sum to the stage."""
        parts = {name: self.parts[name] - before.parts[name] for name in PARTS}
        stage, call, triton = self.stage - before.stage, self.call - before.call, self.triton - before.triton
        spent = {
            "store: read and pad the clusters of the candidates": stage - call,
            "gRPC to Triton and back: serialising, sending, receiving": call - triton,
            "Triton: queue, and what it does not measure": triton - sum(parts.values()) + parts["queue"],
            "Triton: input and output tensors": parts["compute_input"] + parts["compute_output"],
            "our backend and the graph": parts["compute_infer"],
        }
        count = max(self.count - before.count, 1.0)
        return [(name, seconds / count * 1e3) for name, seconds in spent.items()]


def look(metrics_url: str, triton: Any) -> RerankCounters:
    """Read both. metrics_url: the orchestrator's; triton: a client of `tritonclient.grpc`. OpsError if it cannot."""
    page = fetch(metrics_url)
    [found] = triton.get_inference_statistics(MODEL).model_stats
    statistics = found.inference_stats
    return RerankCounters(
        count=page.total(f"{STAGE}_count", stage="rerank"),
        stage=page.total(f"{STAGE}_sum", stage="rerank"),
        call=page.total(f"{CALL}_sum", model=MODEL),
        triton=statistics.success.ns / 1e9,
        parts={name: getattr(statistics, name).ns / 1e9 for name in PARTS},
    )
