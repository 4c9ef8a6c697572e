"""The dashboard with the objectives, the traffic and the latency of searches."""

from __future__ import annotations

from landseer.ops.watch.panels import FAULTS, SEARCH, Board, I, Panel, PromQuery, R, one, quantiles


def budget_left(bad: str, good_share: float) -> str:
    """Return the remaining share of the month's error budget. bad: share of searches that missed the objective."""
    return f"1 - ({bad}) / {1 - good_share:g}"


_MONTH_ERRORS = (
    f"(sum(increase(grpc_server_handled_total{{{SEARCH}, {FAULTS}}}[30d])) or vector(0))"
    f" / sum(increase(grpc_server_handled_total{{{SEARCH}}}[30d]))"
)
_MONTH_SLOW = (
    f'1 - sum(increase(grpc_server_handling_seconds_bucket{{{SEARCH}, le="0.5"}}[30d]))'
    f" / sum(increase(grpc_server_handling_seconds_count{{{SEARCH}}}[30d]))"
)

BOARD = Board(
    uid="landseer-overview",
    title="Landseer: overview",
    description="Whether searches are answered, how fast, and how much of the month's error budget is left.",
    rows=[
        (
            "Objectives: 99.9% of searches do not fail through our fault, 99% are answered within 0.5 s",
            [
                Panel(
                    title="Searches per second",
                    kind="stat",
                    width=4,
                    unit="reqps",
                    queries=one(f"sum(rate(grpc_server_handled_total{{{SEARCH}}}[{R}]))"),
                ),
                Panel(title="Serving", kind="stat", width=4, queries=one(f"sum(landseer_serving{{{I}}})")),
                Panel(
                    title="Availability: error budget left",
                    kind="stat",
                    width=4,
                    unit="percentunit",
                    queries=one(budget_left(_MONTH_ERRORS, 0.999)),
                    description="Over 30 days. Below 0 the objective is missed.",
                ),
                Panel(
                    title="Latency: error budget left",
                    kind="stat",
                    width=4,
                    unit="percentunit",
                    queries=one(budget_left(_MONTH_SLOW, 0.99)),
                    description="Over 30 days. Below 0 the objective is missed.",
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
                        PromQuery(
                            expression="job:landseer_search_errors:ratio_rate5m / 0.001", legend="availability, 5m"
                        ),
                        PromQuery(
                            expression="job:landseer_search_errors:ratio_rate1h / 0.001", legend="availability, 1h"
                        ),
                        PromQuery(expression="job:landseer_search_slow:ratio_rate5m / 0.01", legend="latency, 5m"),
                        PromQuery(expression="job:landseer_search_slow:ratio_rate1h / 0.01", legend="latency, 1h"),
                    ],
                    width=24,
                    description="At 1, a month's budget lasts a month. Alerts page at 14.4 and at 6.",
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
                    title="Calls in flight",
                    queries=one(f"sum by (grpc_method) (grpc_server_in_flight{{{I}}})", "{{grpc_method}}"),
                ),
                Panel(
                    title="Waiting for Triton",
                    queries=one(f"sum by (lane) (landseer_waiting{{{I}}})", "{{lane}}"),
                    description="Waiting uploads do not delay searches: searches have priority.",
                ),
                Panel(
                    title="A next request would take",
                    unit="s",
                    queries=one(f"max by (lane) (landseer_expected_seconds{{{I}}})", "{{lane}}"),
                    description="The server refuses what would be answered after its deadline, or later than "
                    "--refuse-after.",
                ),
                Panel(
                    title="Let in and not yet answered",
                    queries=one(f"sum by (lane) (landseer_admitted{{{I}}})", "{{lane}}"),
                ),
                Panel(title="Open calls", queries=one(f"landseer_open_calls{{{I}}}", "{{instance}}")),
                Panel(
                    title="Requests in flight",
                    unit="bytes",
                    queries=one(f"landseer_bytes_in_flight{{{I}}}", "{{instance}}"),
                ),
                Panel(
                    title="Refused because of load",
                    unit="reqps",
                    queries=one(
                        f"sum by (lane, reason) (rate(landseer_shed_total{{{I}}}[{R}]))", "{{lane}}, {{reason}}"
                    ),
                ),
            ],
        ),
    ],
)
