"""The configuration, rules and alerts, held against Prometheus's own tool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from landseer.ops.errors import OpsError
from landseer.ops.watch import prometheus
from landseer.ops.watch.prometheus import MISSING, SOURCES, Prometheus, PrometheusConfig

ROOT = Path(__file__).resolve().parents[3]
ALERTS = [
    rule
    for group in yaml.safe_load((SOURCES / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
CASES = sorted((SOURCES / "tests").glob("*.yml"))
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here; on Debian: apt install prometheus"
)


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, check=False, text=True, cwd=SOURCES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_the_configuration_and_the_rules():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules/recording.yml", "rules/alerts.yml")


@needs_promtool
def test_every_alert_fires_when_it_should():
    promtool("test", "rules", *map(str, CASES))


def test_every_alert_has_a_case():
    cases = [test for path in CASES for test in yaml.safe_load(path.read_text())["tests"]]
    firing = {case["alertname"] for test in cases for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in ALERTS}


def test_every_alert_has_an_entry_in_the_runbook():
    entries = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert entries == list(dict.fromkeys(entries))
    assert set(entries) == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_links_in_the_runbook_lead_somewhere():
    text = (ROOT / "docs" / "runbook.md").read_text()
    anchors = {name.lower() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= anchors


def test_without_prometheus_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(prometheus, "BINARY", "no-such-prometheus")
    with pytest.raises(OpsError, match=re.escape(MISSING)), Prometheus(PrometheusConfig(targets={})):
        pass


@pytest.mark.skipif(shutil.which("prometheus") is None, reason=MISSING)
def test_a_query_that_is_wrong_says_so():
    with Prometheus(PrometheusConfig(targets={"landseer": "127.0.0.1:1"})) as running:
        with pytest.raises(OpsError, match="prometheus rejected sum by"):
            running.query("sum by (")
        assert running.value("vector(2) + 1") == 3
        assert running.query("nothing_of_that_name") == []
