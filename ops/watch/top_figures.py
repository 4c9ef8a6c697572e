"""The live figures of `landseer top`, computed from two reads of the metrics; independent of the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from landseer.ensemble.search.stages import STAGES
from landseer.ops.watch.scrape import Scrape, buckets, increase, quantile

SEARCH = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}
BACKBONE = "backbone"
"""The model that runs once per picture; counting the ensembles too would count twice."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The orchestrator's figures. Rates are over the interval; NaN means unknown."""

    interval_s: float
    serving: bool
    searches_per_s: float
    """Searches answered with OK."""
    search_s: Mapping[str, float]
    """p50, p95 and p99 of Search, including rejected calls."""
    stage_p95_s: Mapping[str, float]
    """p95 by stage, for the stages that ran in the interval."""
    errors_per_s: Mapping[str, float]
    """By gRPC code, over all methods; only codes that occurred."""
    in_flight: float
    """Calls in flight."""
    triton_in_flight: float
    """Pictures being processed by Triton."""
    waiting: Mapping[str, float]
    """Waiting pictures, by lane."""
    shed_per_s: Mapping[str, float]
    """Rejected requests per second, by lane."""
    degraded: Mapping[str, float]
    """Share of the answered searches, by the stage that was skipped."""
    pictures: float
    store_bytes: float
    store_limit_bytes: float
    ingested_per_s: Mapping[str, float]
    """By outcome; only outcomes that occurred."""


@dataclass(frozen=True, kw_only=True)
class TritonFigures:
    """Triton's figures."""

    pictures_per_s: float
    mean_batch: float
    """Pictures per execution of the backbone; NaN without executions."""


def figures(before: Scrape, now: Scrape) -> Figures:
    """Compute the figures from two pages of an orchestrator."""
    grown = increase(before, now)
    seconds = grown.at

    def rates(label: str, name: str) -> dict[str, float]:
        return {key: value / seconds for key, value in grown.by(label, name).items()}

    took = buckets(grown, "grpc_server_handling_seconds", **SEARCH)
    answered = _or_0(grown.total("grpc_server_handled_total", **SEARCH, grpc_code="OK"))
    ran = grown.by("stage", "landseer_stage_duration_seconds_count")
    left_out = grown.by("stage", "landseer_degraded_total")
    errors = rates("grpc_code", "grpc_server_handled_total")
    return Figures(
        interval_s=seconds,
        serving=now.total("landseer_serving") == 1,
        searches_per_s=answered / seconds,
        search_s={f"p{round(100 * q)}": quantile(q, took) for q in (0.5, 0.95, 0.99)},
        stage_p95_s={
            stage: quantile(0.95, buckets(grown, "landseer_stage_duration_seconds", stage=stage))
            for stage in STAGES
            # The total is shown as the latency of Search.
            if stage != "total" and ran.get(stage)
        },
        errors_per_s={code: rate for code, rate in errors.items() if rate and code != "OK"},
        in_flight=_or_0(now.total("grpc_server_in_flight")),
        triton_in_flight=now.total("landseer_triton_in_flight"),
        waiting=now.by("lane", "landseer_waiting"),
        shed_per_s=rates("lane", "landseer_shed_total"),
        degraded={stage: min(1.0, count / answered) for stage, count in left_out.items() if count and answered},
        pictures=now.total("landseer_index_pictures"),
        store_bytes=now.total("landseer_store_bytes"),
        store_limit_bytes=now.total("landseer_store_limit_bytes"),
        ingested_per_s={
            key: rate for key, rate in rates("outcome", "landseer_ingested_pictures_total").items() if rate
        },
    )


def triton_figures(before: Scrape, now: Scrape) -> TritonFigures:
    """Compute Triton's figures from two of its pages.

    Its counters have no `_total` on the page; the parser follows OpenMetrics and adds it.
    """
    grown = increase(before, now)
    pictures = grown.total("nv_inference_count_total", model=BACKBONE)
    runs = grown.total("nv_inference_exec_count_total", model=BACKBONE)
    return TritonFigures(pictures_per_s=pictures / grown.at, mean_batch=pictures / runs if runs else math.nan)


def plain(figures: Figures | TritonFigures) -> dict[str, Any]:
    """Return figures as JSON values; None for unknown ones."""
    values: dict[str, Any] = _plain(asdict(figures))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _or_0(value: float) -> float:
    """Return 0 for NaN: no sample means that nothing was counted yet."""
    return 0.0 if math.isnan(value) else value
