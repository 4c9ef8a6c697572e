"""`make dashboards`: write `ops/grafana/dashboards/*.json` from `boards/`, with Grafana's SDK."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, VariableRefresh
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from landseer.ops.watch.boards import index, overview, quality, search, triton
from landseer.ops.watch.panels import Board, Panel

FOLDER = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BOARDS = (overview.BOARD, search.BOARD, triton.BOARD, index.BOARD, quality.BOARD)
HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8}
Built = timeseries.Panel | stat.Panel | heatmap.Panel


def main() -> int:
    """Write all dashboards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = FOLDER / f"{board.uid}.json"
        path.write_text(to_json(board), encoding="utf-8")
        print(path)
    return 0


def to_json(board: Board) -> str:
    """Return a dashboard as JSON that Grafana imports."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["landseer"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_instances(board))
        .link(
            dashboard.DashboardLink("Landseer").type(DashboardLinkType.DASHBOARDS).tags(["landseer"]).as_dropdown(True)
        )
    )
    for title, panels in board.rows:
        built = built.with_row(dashboard.Row(title))
        for panel in panels:
            built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _instances(board: Board) -> dashboard.QueryVariable:
    """Return the variable that selects servers: Tritons on Triton's dashboard, orchestrators on the others."""
    metric = "nv_inference_count" if board.uid == "landseer-triton" else "landseer_serving"
    return (
        dashboard.QueryVariable("instance")
        .label("instance")
        .datasource(SOURCE)
        .query(f"label_values({metric}, instance)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def _panel(panel: Panel) -> Built:
    made: Any = _MAKE[panel.kind](panel)  # three classes with the same methods but no common base
    built: Built = made.title(panel.title).description(panel.description).datasource(SOURCE)
    made.span(panel.width).height(HEIGHTS[panel.kind])
    for query, letter in zip(panel.queries, "ABCDEFGH", strict=False):
        made.with_target(_target(query.expression, query.legend, letter, heat=panel.kind == "heatmap"))
    return built


def _target(expression: str, legend: str, letter: str, *, heat: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)
    return target.format(PromQueryFormat.HEATMAP) if heat else target


def _timeseries(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .unit(panel.unit)
        .min(0)
        .fill_opacity(8)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    return built if panel.most is None else built.max(panel.most)


def _stat(panel: Panel) -> stat.Panel:
    return stat.Panel().unit(panel.unit)


def _heatmap(panel: Panel) -> heatmap.Panel:
    return heatmap.Panel().unit(panel.unit).color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME))


_MAKE = {"timeseries": _timeseries, "stat": _stat, "heatmap": _heatmap}


if __name__ == "__main__":
    sys.exit(main())
