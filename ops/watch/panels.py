"""What the dashboards show: one line a query. `dashboards.py` makes Grafana's JSON of it.

`$__rate_interval` is Grafana's own, `$instance` the dashboard's variable. Percentiles are always of a histogram's rate:
a sum over a count since the start says nothing of now. `or vector(0)` stands where no series means none happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap"]
R = "$__rate_interval"
I = 'instance=~"$instance"'  # noqa: E741 - as short as what it stands for
SEARCH = f'grpc_method="Search", {I}'
FAULTS = 'grpc_code=~"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNKNOWN|ABORTED|DATA_LOSS"'


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression and how its series are named."""

    expression: str
    legend: str = "__auto"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    """Grafana's name."""
    kind: Kind = "timeseries"
    description: str = ""
    width: int = 8
    """Of 24."""
    most: float | None = None
    """Upper end of the scale."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    description: str


def one(expression: str, legend: str = "__auto") -> Sequence[Query]:
    """Return a list of one query."""
    return [Query(expression=expression, legend=legend)]


def quantiles(histogram: str, selector: str, by: str = "") -> Sequence[Query]:
    """Return p50, p95 and p99 of a histogram, or only p95 for each value of a label."""
    shares = (0.95,) if by else (0.5, 0.95, 0.99)
    labels = f"le, {by}" if by else "le"
    return [
        Query(
            expression=f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{selector}}}[{R}])))",
            legend=f"{{{{{by}}}}}" if by else f"p{share * 100:.0f}",
        )
        for share in shares
    ]


def budget_left(bad: str, good_share: float) -> str:
    """Return the share of a month's error budget that is left. bad: the share of searches that broke the promise."""
    return f"1 - ({bad}) / {1 - good_share:g}"


_MONTH_ERRORS = (
    f"(sum(increase(grpc_server_handled_total{{{SEARCH}, {FAULTS}}}[30d])) or vector(0))"
    f" / sum(increase(grpc_server_handled_total{{{SEARCH}}}[30d]))"
)
_MONTH_SLOW = (
    f'1 - sum(increase(grpc_server_handling_seconds_bucket{{{SEARCH}, le="0.5"}}[30d]))'
    f" / sum(increase(grpc_server_handling_seconds_count{{{SEARCH}}}[30d]))"
)

OVERVIEW = Board(
    uid="landseer-overview",
    title="Landseer: overview",
    description="Whether searches are answered, how fast, and what is left of the month's error budget.",
    rows=[
        (
            "Promises: 99.9% of searches do not fail by our fault, 99% are answered within 0.5 s",
            [
                Panel(
                    title="Searches a second",
                    kind="stat",
                    width=4,
                    unit="reqps",
                    queries=one(f"sum(rate(grpc_server_handled_total{{{SEARCH}}}[{R}]))"),
                ),
                Panel(title="Serving", kind="stat", width=4, queries=one(f"sum(landseer_serving{{{I}}})")),
                Panel(
                    title="Error budget left, availability",
                    kind="stat",
                    width=4,
                    unit="percentunit",
                    queries=one(budget_left(_MONTH_ERRORS, 0.999)),
                    description="Of 30 days. Below 0 the promise is broken.",
                ),
                Panel(
                    title="Error budget left, latency",
                    kind="stat",
                    width=4,
                    unit="percentunit",
                    queries=one(budget_left(_MONTH_SLOW, 0.99)),
                    description="Of 30 days. Below 0 the promise is broken.",
                ),
                Panel(
                    title="Alerts firing",
                    kind="stat",
                    width=4,
                    queries=one('count(ALERTS{alertstate="firing"}) or vector(0)'),
                ),
                Panel(title="Targets up", kind="stat", width=4, queries=one('sum(up{job=~"landseer|triton"})')),
                Panel(
                    title="Burn rate of the error budgets",
                    queries=[
                        Query(expression="job:landseer_search_errors:ratio_rate5m / 0.001", legend="availability, 5m"),
                        Query(expression="job:landseer_search_errors:ratio_rate1h / 0.001", legend="availability, 1h"),
                        Query(expression="job:landseer_search_slow:ratio_rate5m / 0.01", legend="latency, 5m"),
                        Query(expression="job:landseer_search_slow:ratio_rate1h / 0.01", legend="latency, 1h"),
                    ],
                    width=24,
                    description="1 spends a month's budget in a month. Alerts page at 14.4 and at 6.",
                ),
            ],
        ),
        (
            "Traffic",
            [
                Panel(
                    title="Calls by method",
                    unit="reqps",
                    queries=one(
                        f"sum by (grpc_method) (rate(grpc_server_handled_total{{{I}}}[{R}]))", "{{grpc_method}}"
                    ),
                ),
                Panel(
                    title="Searches by code",
                    unit="reqps",
                    queries=one(
                        f"sum by (grpc_code) (rate(grpc_server_handled_total{{{SEARCH}}}[{R}]))", "{{grpc_code}}"
                    ),
                ),
                Panel(title="Search latency", unit="s", queries=quantiles("grpc_server_handling_seconds", SEARCH)),
                Panel(
                    title="Calls being answered",
                    queries=one(f"sum by (grpc_method) (grpc_server_in_flight{{{I}}})", "{{grpc_method}}"),
                ),
                Panel(
                    title="Waiting for Triton",
                    queries=one(f"sum by (lane) (landseer_waiting{{{I}}})", "{{lane}}"),
                    description="An upload that waits hurts no search: searches go first.",
                ),
                Panel(
                    title="Turned away",
                    unit="reqps",
                    queries=one(f"sum by (lane) (rate(landseer_shed_total{{{I}}}[{R}]))", "{{lane}}"),
                ),
            ],
        ),
    ],
)

STAGES = Board(
    uid="landseer-search",
    title="Landseer: search by stage",
    description="Where the time of a search goes, and which stages fail.",
    rows=[
        (
            "Time",
            [
                Panel(
                    title="p95 by stage",
                    unit="s",
                    width=12,
                    queries=quantiles("landseer_stage_duration_seconds", I, "stage"),
                ),
                Panel(
                    title="Seconds spent in a stage, a second",
                    unit="s",
                    width=12,
                    queries=one(
                        f'sum by (stage) (rate(landseer_stage_duration_seconds_sum{{stage!="total", {I}}}[{R}]))',
                        "{{stage}}",
                    ),
                    description="What a stage costs altogether; describe includes the wait for Triton.",
                ),
                Panel(
                    title="p95 of calls of Triton, by model",
                    unit="s",
                    width=12,
                    queries=quantiles("landseer_triton_request_duration_seconds", I, "model"),
                    description="As the orchestrator sees them, without the wait for their turn.",
                ),
                Panel(
                    title="Pictures with Triton",
                    width=12,
                    queries=one(f"sum by (instance) (landseer_triton_in_flight{{{I}}})", "{{instance}}"),
                ),
            ],
        ),
        (
            "Faults",
            [
                Panel(
                    title="Stages that failed",
                    unit="reqps",
                    queries=one(
                        f"sum by (stage, reason) (rate(landseer_stage_errors_total{{{I}}}[{R}])) or vector(0)",
                        "{{stage}} {{reason}}",
                    ),
                ),
                Panel(
                    title="Calls of Triton by outcome",
                    unit="reqps",
                    queries=one(f"sum by (outcome) (rate(landseer_triton_requests_total{{{I}}}[{R}]))", "{{outcome}}"),
                ),
                Panel(
                    title="Pictures refused",
                    unit="reqps",
                    queries=one(
                        f"sum by (reason) (rate(landseer_decode_failures_total{{{I}}}[{R}])) or vector(0)", "{{reason}}"
                    ),
                ),
            ],
        ),
        (
            "Index",
            [
                Panel(
                    title="Searches answered by one pass of the index",
                    width=12,
                    queries=quantiles("landseer_search_batch_size", I),
                ),
                Panel(
                    title="Passes of the index a second",
                    unit="ops",
                    width=12,
                    queries=one(f"sum(rate(landseer_search_batch_size_count{{{I}}}[{R}]))", "passes"),
                ),
            ],
        ),
    ],
)


def _triton(numerator: str) -> str:
    """Return a time of Triton's, in seconds an inference, by model."""
    return (
        f"sum by (model) (rate({numerator}{{{I}}}[{R}])) / 1e6"
        f" / (sum by (model) (rate(nv_inference_count{{{I}}}[{R}])) > 0)"
    )


TRITON = Board(
    uid="landseer-triton",
    title="Landseer: Triton by model",
    description="What Triton says of itself; the ensembles describe and describe_full are made of the others.",
    rows=[
        (
            "Work",
            [
                Panel(
                    title="Inferences a second",
                    unit="ops",
                    queries=one(f"sum by (model) (rate(nv_inference_count{{{I}}}[{R}]))", "{{model}}"),
                ),
                Panel(
                    title="Pictures in an execution",
                    queries=one(
                        f"sum by (model) (rate(nv_inference_count{{{I}}}[{R}]))"
                        f" / (sum by (model) (rate(nv_inference_exec_count{{{I}}}[{R}])) > 0)",
                        "{{model}}",
                    ),
                    description="1 means that nothing was batched.",
                ),
                Panel(
                    title="Requests that failed",
                    unit="reqps",
                    queries=one(
                        f"sum by (model) (rate(nv_inference_request_failure{{{I}}}[{R}])) or vector(0)", "{{model}}"
                    ),
                ),
            ],
        ),
        (
            "Time of an inference",
            [
                Panel(
                    title="In the queue",
                    unit="s",
                    queries=one(_triton("nv_inference_queue_duration_us"), "{{model}}"),
                ),
                Panel(
                    title="Computing",
                    unit="s",
                    queries=one(_triton("nv_inference_compute_infer_duration_us"), "{{model}}"),
                ),
                Panel(
                    title="Requests in the queue",
                    queries=one(f"sum by (model) (nv_inference_pending_request_count{{{I}}})", "{{model}}"),
                ),
            ],
        ),
    ],
)

INDEX = Board(
    uid="landseer-index",
    title="Landseer: index and ingest",
    description="How large the index is, what comes and goes, and how full the store is.",
    rows=[
        (
            "Index",
            [
                Panel(
                    title="Pictures",
                    queries=one(f"sum by (instance) (landseer_index_pictures{{{I}}})", "{{instance}}"),
                ),
                Panel(
                    title="Came and went",
                    unit="ops",
                    queries=one(
                        f"sum by (outcome) (rate(landseer_ingested_pictures_total{{{I}}}[{R}]))", "{{outcome}}"
                    ),
                ),
                Panel(
                    title="Since the last change",
                    unit="s",
                    queries=one(f"time() - (landseer_index_change_timestamp_seconds{{{I}}} > 0)", "{{instance}}"),
                ),
                Panel(title="Changes in a transaction", queries=quantiles("landseer_write_batch_size", I)),
                Panel(
                    title="Time of an Upsert",
                    unit="s",
                    queries=quantiles("grpc_server_handling_seconds", f'grpc_method="Upsert", {I}'),
                ),
                Panel(
                    title="Since the index was built",
                    unit="s",
                    queries=one(f"time() - landseer_index_built_timestamp_seconds{{{I}}}", "{{instance}}"),
                ),
            ],
        ),
        (
            "Store and process",
            [
                Panel(
                    title="Store",
                    unit="bytes",
                    queries=one(f"sum by (instance) (landseer_store_bytes{{{I}}})", "{{instance}}"),
                ),
                Panel(
                    title="Of the store's limit",
                    unit="percentunit",
                    most=1.0,
                    queries=one(f"landseer_store_bytes{{{I}}} / landseer_store_limit_bytes{{{I}}}", "{{instance}}"),
                ),
                Panel(
                    title="Memory of the orchestrator",
                    unit="bytes",
                    queries=one(f'process_resident_memory_bytes{{job="landseer", {I}}}', "{{instance}}"),
                ),
            ],
        ),
    ],
)

QUALITY = Board(
    uid="landseer-quality",
    title="Landseer: quality of retrieval",
    description="Nobody knows here who was right. But when these change while traffic does not, something did.",
    rows=[
        (
            "Scores",
            [
                Panel(
                    title="Score of the best hit",
                    kind="heatmap",
                    width=16,
                    queries=one(
                        f'sum by (le) (increase(landseer_top_score_bucket{{ranking="global", {I}}}[{R}]))', "{{le}}"
                    ),
                    description="Cosine with the query. A shift to the left: pictures that are not in the index.",
                ),
                Panel(
                    title="Median score of the best hit, by ranking",
                    queries=[
                        Query(
                            expression="histogram_quantile(0.5, sum by (le, ranking) "
                            f"(rate(landseer_top_score_bucket{{{I}}}[{R}])))",
                            legend="{{ranking}}",
                        )
                    ],
                ),
            ],
        ),
        (
            "What expansion and re-ranking change",
            [
                Panel(
                    title="Hits kept",
                    unit="percentunit",
                    most=1.0,
                    queries=one(
                        f"sum by (stage) (rate(landseer_hits_kept_ratio_sum{{{I}}}[{R}]))"
                        f" / (sum by (stage) (rate(landseer_hits_kept_ratio_count{{{I}}}[{R}])) > 0)",
                        "{{stage}}",
                    ),
                    description="Of the hits wanted, how many were there before the stage. 100%: it changes nothing.",
                ),
                Panel(
                    title="Searches by what was asked",
                    unit="reqps",
                    queries=one(
                        f"sum by (query, expansion, reranking) (rate(landseer_searches_total{{{I}}}[{R}]))",
                        "{{query}}, {{expansion}}, {{reranking}}",
                    ),
                ),
                Panel(
                    title="Degraded answers",
                    unit="percentunit",
                    queries=one("job:landseer_degraded:ratio_rate5m", "{{job}}"),
                    description="Given without a stage that was asked for.",
                ),
            ],
        ),
    ],
)

BOARDS = (OVERVIEW, STAGES, TRITON, INDEX, QUALITY)
