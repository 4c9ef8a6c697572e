"""What can be tested of the dashboards without Grafana: schema, expressions, and that they are up to date."""

from __future__ import annotations

import json

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from landseer.ensemble.telemetry.metrics import SEARCH_OBJECTIVE_S, Metrics
from landseer.ops.watch.dashboards import BOARDS, FOLDER, to_json
from landseer.ops.watch.prometheus import SOURCES
from landseer.ops.watch.queries import panel_queries

QUERIES = list(panel_queries())
PLAIN = {"__name__", "le", "job", "instance"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_files_are_what_the_panels_say(board):
    """To accept a change: make dashboards."""
    assert (FOLDER / f"{board.uid}.json").read_text() == to_json(board)
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.uid for board in BOARDS}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_board_survives_grafanas_model(board):
    text = to_json(board)
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(json.loads(text)))
    assert json.loads(again) == json.loads(text)


def test_panels_do_not_overlap_and_stay_on_the_grid():
    for path in FOLDER.glob("*.json"):
        taken = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, (path.name, panel["title"])
            assert place["x"] + place["w"] <= 24, (path.name, panel["title"])
            taken |= cells


def test_every_panel_uses_the_datasource_variable():
    for path in FOLDER.glob("*.json"):
        board = json.loads(path.read_text())
        assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "instance"]
        targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
        assert {target["datasource"]["uid"] for target in targets} == {"${datasource}"}


def expressions():
    for query in QUERIES:
        yield f"{query.board}/{query.panel}", query.filled(interval="1m")
    for name in ("recording", "alerts"):
        for group in yaml.safe_load((SOURCES / "rules" / f"{name}.yml").read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_an_expression_parses_and_names_only_metrics_that_exist(name, expression):
    tree = promql_parser.parse(expression)
    existing = set()
    for family in Metrics().registry.collect():
        existing |= {family.name, *(f"{family.name}{end}" for end in ("_total", "_bucket", "_sum", "_count"))}
    recorded = {rule for rule, _ in expressions() if rule.startswith("job:")}
    for used in metrics_of(tree):
        tritons = used.startswith("nv_") or used == "landseer_triton_refused_total"
        known = used in existing or used in recorded or used in {"up", "ALERTS"} or tritons
        assert known, f"{name} asks for {used}"


def metrics_of(tree):
    """Names of all metrics in an expression."""
    if isinstance(tree, promql_parser.VectorSelector):
        return {tree.name}
    if isinstance(tree, promql_parser.MatrixSelector):
        return metrics_of(tree.vector_selector)
    inner = [getattr(tree, name, None) for name in ("expr", "lhs", "rhs")]
    inner += list(getattr(tree, "args", None) or [])
    return set().union(*(metrics_of(one) for one in inner if one is not None))


def test_percentiles_come_from_rates():
    for query in QUERIES:
        if "histogram_quantile" in query.expression:
            assert "rate(" in query.expression, query


def test_the_latency_promise_is_the_objective_of_the_code():
    assert SEARCH_OBJECTIVE_S == 0.5
    asking = [expression for _, expression in expressions() if 'le="' in expression]
    assert len(asking) >= 6
    for expression in asking:
        assert 'le="0.5"' in expression
