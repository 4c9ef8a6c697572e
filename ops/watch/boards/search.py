"""The dashboard of a search by stage."""

from __future__ import annotations

from landseer.ops.watch.panels import Board, I, Panel, R, one, quantiles

BOARD = Board(
    uid="landseer-search",
    title="Landseer: search by stage",
    description="Where the time of a search goes and which stages fail.",
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
                    title="Time spent per stage, in seconds per second",
                    unit="s",
                    width=12,
                    queries=one(
                        f'sum by (stage) (rate(landseer_stage_duration_seconds_sum{{stage!="total", {I}}}[{R}]))',
                        "{{stage}}",
                    ),
                    description="The total cost of each stage. `describe` includes waiting for Triton.",
                ),
                Panel(
                    title="p95 of calls to Triton, by model",
                    unit="s",
                    width=12,
                    queries=quantiles("landseer_triton_request_duration_seconds", I, "model"),
                    description="Measured by the orchestrator, without waiting in its queue.",
                ),
                Panel(
                    title="Pictures being processed by Triton",
                    width=12,
                    queries=one(f"sum by (instance) (landseer_triton_in_flight{{{I}}})", "{{instance}}"),
                ),
            ],
        ),
        (
            "Errors",
            [
                Panel(
                    title="Failed stages",
                    unit="reqps",
                    queries=one(
                        f"sum by (stage, reason) (rate(landseer_stage_errors_total{{{I}}}[{R}])) or vector(0)",
                        "{{stage}} {{reason}}",
                    ),
                ),
                Panel(
                    title="Calls to Triton by outcome",
                    unit="reqps",
                    queries=one(f"sum by (outcome) (rate(landseer_triton_requests_total{{{I}}}[{R}]))", "{{outcome}}"),
                ),
                Panel(
                    title="Rejected pictures",
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
                    title="Searches per pass over the index",
                    width=12,
                    queries=quantiles("landseer_search_batch_size", I),
                ),
                Panel(
                    title="Passes over the index per second",
                    unit="ops",
                    width=12,
                    queries=one(f"sum(rate(landseer_search_batch_size_count{{{I}}}[{R}]))", "passes"),
                ),
            ],
        ),
    ],
)
