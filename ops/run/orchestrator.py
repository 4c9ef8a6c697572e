"""Runs the orchestrator, `landseer serve`, in its own process."""

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
PATIENT = ("--refuse-after", "60")
"""More options of `landseer serve`, for benchmarks and tests whose callers would rather wait than be refused."""
_RECORD = re.compile(r"""(?:\d{4}-\d\d-\d\d \S+ |\{"time": "[^"]+", "level": ")([A-Z]+)\b""")
"""The start of a log record, in either format."""
_ERROR = "landseer serve: "
"""The start of the line that says why it ended."""


@dataclass(frozen=True, kw_only=True)
class OrchestratorConfig:
    """The options of `landseer serve`."""

    listen: str
    triton: str
    store: Path
    metrics: str
    ready_file: Path | None = None
    """What shows that it serves; None asks its health by gRPC, which a server with TLS does not answer."""
    extra_args: tuple[str, ...] = ()
    module: str = "landseer.client.cli"
    """The module that Python runs; a benchmark replaces it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables in addition to ours."""
    on_line: Callable[[str], None] | None = None
    """Called with each line of the log, in a separate thread."""


class Warnings:
    """Selects warnings and errors from the orchestrator's log, with all their lines."""

    def __init__(self) -> None:
        self._picked = True

    def pick(self, line: str) -> bool:
        """Return whether a line belongs to a warning or an error, or was written outside the log."""
        record = _RECORD.match(line)
        if record is None:
            return self._picked or line.startswith(_ERROR)
        worth_it = record[1] not in ("DEBUG", "INFO")
        # A text record may span several lines; a JSON record does not, and what follows it is outside the log.
        self._picked = worth_it or is_json(line)
        return worth_it


class Orchestrator(Server):
    """One orchestrator."""

    name = "the server"

    def __init__(self, config: OrchestratorConfig) -> None:
        super().__init__()
        self.config = config

    def start(self) -> None:
        """Start the process."""
        if self.config.ready_file is not None:
            self.config.ready_file.unlink(missing_ok=True)
        self._child = Child.start(
            ChildConfig(
                command=_command(self.config),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.config.env},
                on_line=self.config.on_line,
            )
        )

    @property
    def ready(self) -> bool:
        """Whether its health is SERVING."""
        file = self.config.ready_file
        return is_serving(self.config.listen) if file is None else file.exists()

    def explain(self) -> str:
        """Return why it ended, in one line."""
        picks = Warnings()
        lines = [_told(line.strip()) for line in (self._child.lines if self._child else ()) if picks.pick(line)]
        said = [line for line in lines if line.startswith(_ERROR)] or [line for line in lines if line]
        return "; ".join(said[-LAST_LINES:]) or "it gave no reason"


def is_json(line: str) -> bool:
    """Return whether a line is a JSON log record."""
    return line.startswith("{") and _RECORD.match(line) is not None


def _told(line: str) -> str:
    """Return a line for people: the message of a JSON record, any other line unchanged."""
    if not is_json(line):
        return line
    try:
        record = json.loads(line)
        return f"{_ERROR if record['level'] == 'CRITICAL' else ''}{record['message']}"
    except (ValueError, KeyError):  # truncated
        return line


def is_serving(address: str) -> bool:
    """Return whether the gRPC server at host:port reports SERVING overall."""
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
    if config.ready_file is not None:
        options["--ready-file"] = str(config.ready_file)
    flat = [word for option in options.items() for word in option]
    return [sys.executable, "-m", config.module, "serve", *flat, *config.extra_args]
