"""One Triton, and the orchestrators on it, each over a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.bench.cpu_time import CpuTime, cpu_time
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.server import Startable
from landseer.ops.run.triton import TritonConfig, TritonServer

START_S = 300.0
ANSWER_S = 120.0
"""Deadline of a search, so long that no stage is left out on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """An orchestrator that is ready."""

    address: str
    client: BlockingSearchClient
    sessions: tuple[int, int]
    """Sessions of Triton and the orchestrator."""

    def cpu_time(self) -> CpuTime:
        """Read how busy the machine was so far."""
        return cpu_time(self.sessions)


class Servers(Startable):
    """Triton, ready after start(); `serving` adds orchestrators."""

    def __init__(self, repository: Path) -> None:
        self._triton = TritonServer(TritonConfig(repository=repository))

    def start(self) -> None:
        """Start Triton and wait until its models are loaded. OpsError."""
        self._triton.start()
        self._triton.wait_ready(START_S)

    def stop(self) -> None:
        """Stop Triton."""
        self._triton.stop()

    @contextmanager
    def serving(self, store: Path, *options: str) -> Iterator[Serving]:
        """Run an orchestrator over a store, with more options of `landseer serve`, until the block ends. OpsError."""
        config = OrchestratorConfig(
            listen=f"{LOOPBACK}:{free_port()}",
            triton=self._triton.grpc_url,
            store=store,
            metrics=f"{LOOPBACK}:{free_port()}",
            extra_args=options,
        )
        server = Orchestrator(config)
        try:
            server.start()
            server.wait_ready(START_S)
            with BlockingSearchClient(config.listen, timeout=ANSWER_S) as client:
                yield Serving(address=config.listen, client=client, sessions=(self._triton.pid, server.pid))
        finally:
            server.stop()
