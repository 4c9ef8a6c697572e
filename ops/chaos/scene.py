"""The real processes that are hurt: Triton and an orchestrator, both started again when they end."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from landseer.ops.errors import OpsError
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import how_ended
from landseer.ops.run.server import Server, Startable
from landseer.ops.run.triton import TritonServer

T = TypeVar("T")
WATCH_S = 0.1
READY_S = 300.0


class Scene(Startable):
    """Triton, an orchestrator, and a watch that restarts them on the same ports, as `landseer up` or Kubernetes do."""

    def __init__(self, triton: TritonServer, *, folder: Path, shared: bool = False) -> None:
        """folder: for the store and whatever else a fault needs. shared: somebody else starts and stops Triton."""
        self.triton, self.folder = triton, folder
        self._ours = not shared
        self._listen, self._metrics = (f"{LOOPBACK}:{free_port()}" for _ in range(2))
        self._orchestrator: Orchestrator | None = None
        self._watch: threading.Thread | None = None
        self._over, self._hands_off = threading.Event(), threading.Lock()
        self.crashes: list[str] = []
        """Servers that ended though nobody meant them to, one sentence each."""
        self.expected: set[int] = set()
        """Process ids that may end."""
        self.may_end = False
        """Whether the orchestrator may end by itself, as one that refuses to start does."""

    @property
    def address(self) -> str:
        """HOST:PORT of the orchestrator."""
        return self._listen

    @property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator; OpsError before start()."""
        if self._orchestrator is None:
            raise OpsError("the scene was not started")
        return self._orchestrator

    @property
    def store(self) -> Path:
        """The folder of the orchestrator's store."""
        return self.orchestrator.config.store

    def start(self) -> None:
        """Start both and wait until they serve; OpsError if they cannot."""
        if self._ours:
            self.triton.start()
            self.triton.wait_ready(READY_S)
        config = OrchestratorConfig(
            listen=self._listen,
            triton=self.triton.grpc_url,
            store=self.folder / "store",
            metrics=self._metrics,
            module="landseer.ops.chaos.tripwires",
            env={"LANDSEER_TRIPWIRES": str(self.folder)},
        )
        self._orchestrator = Orchestrator(config)
        self._begin()
        self._watch = threading.Thread(target=self._keep, name="landseer-scene", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Stop what was started."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
        if self._orchestrator is not None:
            self._orchestrator.stop()
        if self._ours:
            self.triton.stop()

    def serve(self, **options: object) -> None:
        """Stop the orchestrator in order, and start it with other options, fields of OrchestratorConfig."""
        with self._hands_off:
            self.orchestrator.stop()
            self._orchestrator = Orchestrator(dataclasses.replace(self.orchestrator.config, **options))  # type: ignore[arg-type]
            self._begin()

    def between(self, work: Callable[[], T]) -> T:
        """Stop the orchestrator, do some work, and start it again; OpsError if it does not serve."""
        with self._hands_off:
            self.orchestrator.stop()
            result = work()
            self._begin()
        return result

    def exchange(self, repository: Path) -> None:
        """Stop Triton, and start it on the same ports with another model repository."""
        with self._hands_off:
            self.triton.stop()
            self.triton.config = dataclasses.replace(self.triton.config, repository=repository)
            self.triton.start()
            self.triton.wait_ready(READY_S)

    def kill(self, server: Server) -> None:
        """End a server with SIGKILL."""
        self.expected.add(server.pid)
        os.kill(server.pid, signal.SIGKILL)

    def wait_ready(self, server: Callable[[], Server], *, other_than: int, timeout_s: float = READY_S) -> None:
        """Wait until a server is ready, with another process id; OpsError after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while not (server().pid != other_than and server().ready):
            if time.monotonic() > until:
                raise OpsError(f"{server().name} was not ready again after {timeout_s:g} s: {server().explain()}")
            time.sleep(0.05)

    def _begin(self) -> None:
        self.orchestrator.start()
        self.orchestrator.wait_ready(READY_S)

    def _keep(self) -> None:
        while not self._over.wait(WATCH_S):
            with self._hands_off:
                self._restart(self.orchestrator)
                if self._ours:
                    self._restart(self.triton)

    def _restart(self, server: Server) -> None:
        if server.alive:
            return
        if server.pid not in self.expected and not (self.may_end and server is self.orchestrator):
            self.crashes.append(f"{server.name} ended ({how_ended(server.returncode)})")
        self.expected.add(server.pid)
        server.stop()
        with suppress(OpsError):
            server.start()
