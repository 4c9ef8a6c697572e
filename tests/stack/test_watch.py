"""A real Prometheus over the real stack: what it counts, what the dashboards show, and an alert that really fires."""

from __future__ import annotations

import shutil
import time

import pytest
from stack.photos import WHEEL, wheel
from stack.servers import within

from landseer.ops.watch.prometheus import MISSING, Prometheus, PrometheusConfig
from landseer.ops.watch.queries import panel_queries, series
from landseer.v1 import search_pb2

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason=MISSING),
]
SEARCHES = 'sum(grpc_server_handled_total{grpc_method="Search"})'
LATTQE = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, allow_untrained=True)
# Nothing but the rates' windows is shortened: they are Grafana's own choice.
INTERVAL = "5s"
DOWN = 'ALERTS{alertname="LandseerTargetDown"}'
FIRING = 'ALERTS{alertname="LandseerTargetDown", alertstate="firing"}'


def traffic(landseer, *, seconds: float) -> int:
    """Search in every way, with uploads among it; return how many searches there were."""
    until, searches = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        path = wheel(WHEEL[searches % len(WHEEL)])
        landseer.client.search(path, reranking="coattention", expansion=LATTQE)
        landseer.client.search(f"album/{path.name}")
        landseer.client.upsert(f"watch/{path.name}", path.read_bytes())
        searches += 2
        time.sleep(0.3)  # leave the other core to others
    return searches


def test_prometheus_counts_what_clients_did_and_every_panel_has_data(stack, landseer, album):
    with Prometheus(PrometheusConfig(targets=stack.targets)) as prometheus:
        within(15, lambda: prometheus.value("sum(up)") == 2)
        landseer.client.search("album/coffee.png")  # or there would be no series yet
        within(15, lambda: prometheus.value(SEARCHES) == landseer.searches())
        before = prometheus.value(SEARCHES)
        made = traffic(landseer, seconds=15)
        empty = {
            (query.board, query.panel, query.expression): query
            for query in panel_queries()
            if not series(prometheus, query, interval=INTERVAL)
        }
        assert not empty, list(empty)
        within(10, lambda: prometheus.value(SEARCHES) - before == made)
        assert not prometheus.query(DOWN)


def test_an_alert_fires_when_an_orchestrator_is_gone(another, stack, tmp_path):
    server, handle = another(tmp_path / "store")
    targets = {"landseer": handle.metrics_address.split("/")[2], "triton": stack.targets["triton"]}
    with Prometheus(PrometheusConfig(targets=targets, interval_s=0.5, hold="1s")) as prometheus:
        within(15, lambda: prometheus.value("sum(up)") == 2)
        assert not prometheus.query(DOWN)
        server.stop()
        within(20, lambda: prometheus.query(FIRING))
        [alert] = prometheus.query(FIRING)
        assert (alert.labels["job"], alert.labels["severity"]) == ("landseer", "page")
