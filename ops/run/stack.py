"""Triton and the orchestrator on one machine, started, supervised and stopped together."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from landseer.ops.errors import OpsError
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port, parse_address, require_free
from landseer.ops.run.restarts import Restarts
from landseer.ops.run.server import Startable
from landseer.ops.run.triton import TritonConfig, TritonServer
from landseer.ops.run.watched import Watched

WATCH_S = 0.5


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What to serve and where. An address of None means a free port on loopback."""

    repository: Path = Path("model_repository")
    store: Path = Path("var/store")
    listen: str | None = None
    metrics: str | None = None
    threads: int | None = None
    """Threads of each model; None for all cores."""
    timeout_s: float = 180.0
    """For Triton to load its models, and separately for the orchestrator to serve."""
    serve_args: tuple[str, ...] = ()
    """More options for `landseer serve`."""
    tls: bool = False
    """Whether they have the orchestrator use TLS."""
    on_line: Callable[[str, str], None] | None = None
    """Called with the name of the process and each line of its log, in separate threads."""


class Stack(Startable):
    """Both servers, ready after start()."""

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.search_address = _address(config.listen, "--listen")
        """host:port of the gRPC services."""
        self._metrics = _address(config.metrics, "--metrics")
        self.triton = TritonServer(
            TritonConfig(repository=config.repository, threads=config.threads, on_line=self._sink("triton"))
        )
        self._orchestrator: Orchestrator | None = None
        self._ready = tempfile.TemporaryDirectory(prefix="landseer-") if config.tls else None

    @property
    def metrics_address(self) -> str:
        """URL of the orchestrator's Prometheus metrics."""
        return f"{'https' if self.config.tls else 'http'}://{self._metrics}/metrics"

    @property
    def targets(self) -> dict[str, str]:
        """The targets for Prometheus: host:port by job."""
        return {"landseer": self._metrics, "triton": self.triton.metrics_url.split("/")[2]}

    @property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator; OpsError before start()."""
        if self._orchestrator is None:
            raise OpsError("the stack was not started")
        return self._orchestrator

    def start(self, stop: threading.Event | None = None) -> None:
        """Start both and wait until they serve, or until `stop` is set; OpsError if they cannot."""
        self.config.store.mkdir(parents=True, exist_ok=True)
        self._start_triton(stop)
        self._orchestrator = Orchestrator(
            OrchestratorConfig(
                listen=self.search_address,
                triton=self.triton.grpc_url,
                store=self.config.store,
                metrics=self._metrics,
                ready_file=Path(self._ready.name, "ready") if self._ready else None,
                extra_args=self.config.serve_args,
                on_line=self._sink("server"),
            )
        )
        if stop is None or not stop.is_set():
            self._start_orchestrator(stop)

    def stop(self) -> None:
        """Stop both, the orchestrator first. Does no harm if they have ended."""
        if self._orchestrator is not None:
            self._orchestrator.stop()
        self.triton.stop()
        if self._ready is not None:
            self._ready.cleanup()

    def supervise(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Restart a server that ends, on the same ports, until `stop` is set; OpsError if it keeps ending."""
        watched = (
            Watched(self.triton, Restarts(name=self.triton.name), self._start_triton),
            Watched(self.orchestrator, Restarts(name=self.orchestrator.name), self._start_orchestrator),
        )
        while not stop.wait(WATCH_S):
            for one in watched:
                one.look(stop, say)

    def _start_triton(self, stop: threading.Event | None) -> None:
        self.triton.start()
        self.triton.wait_ready(self.config.timeout_s, stop=stop)

    def _start_orchestrator(self, stop: threading.Event | None) -> None:
        self.orchestrator.start()
        self.orchestrator.wait_ready(self.config.timeout_s, stop=stop)

    def _sink(self, name: str) -> Callable[[str], None] | None:
        on_line = self.config.on_line
        return None if on_line is None else lambda line: on_line(name, line)


def _address(asked: str | None, flag: str) -> str:
    if asked is None:
        return f"{LOOPBACK}:{free_port()}"
    host, port = parse_address(asked, flag)
    require_free(port, flag, host=host)
    return asked
