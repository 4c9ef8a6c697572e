"""Reads the dashboards' queries from the JSON for Grafana, and sends them to Prometheus."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landseer.ops.watch.prometheus import Prometheus

FOLDER = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"


@dataclass(frozen=True, kw_only=True)
class PanelQuery:
    """One query of one panel."""

    board: str
    panel: str
    expression: str

    def filled(self, *, interval: str) -> str:
        """Return the expression with Grafana's variables replaced: all instances, rates over `interval`."""
        return self.expression.replace("$__rate_interval", interval).replace("$instance", ".*")


def panel_queries() -> Iterator[PanelQuery]:
    """Yield every query of every dashboard."""
    for path in sorted(FOLDER.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in _panels(board["panels"]):
            for target in panel.get("targets", ()):
                yield PanelQuery(board=board["title"], panel=panel["title"], expression=target["expr"])


def series(prometheus: Prometheus, query: PanelQuery, *, interval: str) -> int:
    """Return the number of series with a value that is not NaN. OpsError if Prometheus rejects the query."""
    return sum(not math.isnan(sample.value) for sample in prometheus.query(query.filled(interval=interval)))


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield all panels, including those in rows."""
    for panel in panels:
        yield panel
        yield from panel.get("panels", ())
