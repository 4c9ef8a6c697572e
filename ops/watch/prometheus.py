"""A Prometheus with our rules that scrapes a local stack, for `make load`, the benchmarks and the tests."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from landseer.ops.errors import OpsError
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.server import Server

SOURCES = Path(__file__).resolve().parents[1] / "prometheus"
"""Our configuration and rules."""
BINARY = "prometheus"
START_S = 30.0
MISSING = "no `prometheus` found; on Debian: apt install prometheus"


@dataclass(frozen=True, kw_only=True)
class PrometheusConfig:
    """What to scrape, and how often."""

    targets: Mapping[str, str]
    """host:port by job (landseer, triton)."""
    interval_s: float = 1.0
    """Seconds between scrapes, and between evaluations of the rules."""
    hold: str | None = None
    """Replaces the `for` of every alert, for tests that cannot wait for minutes; None keeps them."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One series of an instant query."""

    labels: Mapping[str, str]
    value: float


class Prometheus(Server):
    """One server on a free port of loopback; its data are deleted when it stops."""

    name = "prometheus"

    def __init__(self, config: PrometheusConfig) -> None:
        super().__init__()
        self.config = config
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._folder = Path(tempfile.mkdtemp(prefix="landseer-prometheus-"))

    def start(self) -> None:
        """Start it and wait until it answers. OpsError if it is not installed or does not start."""
        binary = shutil.which(BINARY)
        if binary is None:
            raise OpsError(MISSING)
        _write(self._folder, self.config)
        command = [
            binary,
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        self._child = Child.start(ChildConfig(command=command, remove=[str(self._folder)]))
        self.wait_ready(START_S)

    def stop(self) -> int | None:
        """Stop it and delete its data. Return its exit status, or None if it was never started."""
        status = super().stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        return status

    def explain(self) -> str:
        """Return the last line of its output."""
        return self._child.lines[-1] if self._child is not None and self._child.lines else "no output"

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """Evaluate an expression now, or at a time in Unix seconds. OpsError if Prometheus rejects it."""
        found = self._get("query", query=expression, **({} if at is None else {"time": f"{at:.3f}"}))
        if found["resultType"] == "scalar":
            return [Sample(labels={}, value=float(found["result"][1]))]
        return [Sample(labels=one["metric"], value=float(one["value"][1])) for one in found["result"]]

    def value(self, expression: str, *, at: float | None = None) -> float:
        """Return the single value of an expression; NaN if it has none. OpsError if it has several."""
        found = self.query(expression, at=at)
        if len(found) > 1:
            raise OpsError(f"{expression} has {len(found)} series; expected one")
        return found[0].value if found else math.nan

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        data = urllib.parse.urlencode(parameters).encode() or None
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", data=data, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read() or b"{}").get("error", error.reason)
            raise OpsError(f"prometheus rejected {parameters.get('query', path)}: {said}") from error


def _write(folder: Path, config: PrometheusConfig) -> None:
    """Write our configuration, with these targets and intervals."""
    main = yaml.safe_load((SOURCES / "prometheus.yml").read_text())
    pause = f"{config.interval_s * 1000:.0f}ms"
    main["global"] = {"scrape_interval": pause, "scrape_timeout": pause, "evaluation_interval": pause}
    (folder / "rules").mkdir()
    for name in main["rule_files"]:
        rules = yaml.safe_load((SOURCES / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if config.hold is not None and "for" in rule:
                rule["for"] = config.hold
        (folder / name).write_text(yaml.safe_dump(rules))
    (folder / "targets").mkdir()
    for job, target in config.targets.items():
        (folder / "targets" / f"{job}.yml").write_text(yaml.safe_dump([{"targets": [target]}]))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(main))
