"""Starts the orchestrator, `landseer serve`, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.server import Server

LAST_LINES = 3
_RECORD = re.compile(r"""(?:\d{4}-\d\d-\d\d \S+ |\{"time": "[^"]+", "level": ")([A-Z]+)\b""")
"""How a record begins, in either format of the log."""
_ERROR = "landseer serve: "
"""How the line begins that says why it ended."""


@dataclass(frozen=True, kw_only=True)
class OrchestratorConfig:
    """What `landseer serve` is told."""

    listen: str
    triton: str
    store: Path
    metrics: str
    extra_args: tuple[str, ...] = ()
    module: str = "landseer.client.cli"
    """What Python runs; benchmarks have one of their own."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside ours."""
    log_file: Path | None = None
    on_line: Callable[[str], None] | None = None
    """Called with each line of its log, in a thread of its own."""


class Warnings:
    """Picks from the orchestrator's log the records worth showing, with all their lines."""

    def __init__(self) -> None:
        self._picked = True

    def pick(self, line: str) -> bool:
        """Say whether a line belongs to a warning or an error, or to what was written outside the log."""
        record = _RECORD.match(line)
        if record is None:
            return self._picked or line.startswith(_ERROR)
        worth_it = record[1] not in ("DEBUG", "INFO")
        # A record in text may go on for lines; one in JSON never does, and what follows it is no part of the log.
        self._picked = worth_it or is_json(line)
        return worth_it


class Orchestrator(Server):
    """One orchestrator."""

    name = "the orchestrator"

    def __init__(self, config: OrchestratorConfig) -> None:
        super().__init__()
        self.config = config

    def start(self) -> None:
        """Start the process."""
        self._child = Child.start(
            ChildConfig(
                command=_command(self.config),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.config.env},
                log_file=self.config.log_file,
                on_line=self.config.on_line,
            )
        )

    @property
    def ready(self) -> bool:
        """Whether its health is SERVING."""
        return is_serving(self.config.listen)

    def explain(self) -> str:
        """Return its last words, in one line."""
        picks = Warnings()
        lines = [_told(line.strip()) for line in (self._child.lines if self._child else ()) if picks.pick(line)]
        said = [line for line in lines if line.startswith(_ERROR)] or [line for line in lines if line]
        return "; ".join(said[-LAST_LINES:]) or "it gave no reason"


def is_json(line: str) -> bool:
    """Say whether a line is a record of the log in JSON."""
    return line.startswith("{") and _RECORD.match(line) is not None


def _told(line: str) -> str:
    """Return what a line says to people; a record in JSON is told as the same would be in text."""
    if not is_json(line):
        return line
    try:
        record = json.loads(line)
        return f"{_ERROR if record['level'] == 'CRITICAL' else ''}{record['message']}"
    except (ValueError, KeyError):  # cut short
        return line


def is_serving(address: str) -> bool:
    """Say whether the gRPC server at host:port reports SERVING as a whole."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service="")
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _command(config: OrchestratorConfig) -> list[str]:
    options = {
        "--listen": config.listen,
        "--triton": config.triton,
        "--store": str(config.store),
        "--metrics": config.metrics,
    }
    flat = [word for option in options.items() for word in option]
    return [sys.executable, "-m", config.module, "serve", *flat, *config.extra_args]
