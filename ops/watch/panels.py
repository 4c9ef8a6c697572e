"""What dashboards are made of: boards, panels and queries.

`$__rate_interval` is Grafana's, `$instance` the dashboard's own variable. Percentiles always come from the rate of a
histogram, because totals since the start say nothing about now. `or vector(0)` is used where no series means zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap"]
R = "$__rate_interval"
I = 'instance=~"$instance"'  # noqa: E741 - short because every query has it
SEARCH = f'grpc_method="Search", {I}'
FAULTS = 'grpc_code=~"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNKNOWN|ABORTED|DATA_LOSS"'


@dataclass(frozen=True, kw_only=True)
class PromQuery:
    """An expression and the legend of its series."""

    expression: str
    legend: str = "__auto"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of a dashboard."""

    title: str
    queries: Sequence[PromQuery]
    unit: str = "short"
    """Grafana's name of the unit."""
    kind: Kind = "timeseries"
    description: str = ""
    width: int = 8
    """In columns, of 24."""
    most: float | None = None
    """Upper end of the axis."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    description: str


def one(expression: str, legend: str = "__auto") -> Sequence[PromQuery]:
    """Return a list of one query."""
    return [PromQuery(expression=expression, legend=legend)]


def quantiles(histogram: str, selector: str, by: str = "") -> Sequence[PromQuery]:
    """Return queries for p50, p95 and p99 of a histogram, or only for p95 by a label."""
    shares = (0.95,) if by else (0.5, 0.95, 0.99)
    labels = f"le, {by}" if by else "le"
    return [
        PromQuery(
            expression=f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{selector}}}[{R}])))",
            legend=f"{{{{{by}}}}}" if by else f"p{share * 100:.0f}",
        )
        for share in shares
    ]
