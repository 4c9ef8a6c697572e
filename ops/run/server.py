"""What Triton, the orchestrator and Prometheus have in common: each runs as a child process."""

from __future__ import annotations

import threading
import time
from typing import TypeVar

from landseer.ops.errors import OpsError
from landseer.ops.run.processes import Child, how_ended

POLL_S = 0.1
T = TypeVar("T", bound="Startable")


class Startable:
    """Has start() and stop(). As a context manager it starts on entry and stops on exit, also if entry fails."""

    def start(self) -> None:
        """Start it."""
        raise NotImplementedError

    def stop(self) -> object:
        """Stop it; does no harm if it has ended or was never started."""
        raise NotImplementedError

    def __enter__(self: T) -> T:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Server(Startable):
    """A server in a child process. A subclass has start(), `ready` and explain()."""

    name: str

    def __init__(self) -> None:
        self._child: Child | None = None

    def wait_ready(self, timeout: float = 120.0, *, stop: threading.Event | None = None) -> None:
        """Wait until it is ready, or until `stop` is set.

        OpsError, with its reasons, if it ends first or is not ready after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        stop = stop or threading.Event()
        while not self.ready and not stop.is_set():
            if not self.alive:
                raise OpsError(f"{self.name} ended while starting ({how_ended(self.returncode)}): {self.explain()}")
            if time.monotonic() > until:
                raise OpsError(f"{self.name} was not ready after {timeout:.0f} s: {self.explain()}")
            stop.wait(POLL_S)

    def stop(self) -> int | None:
        """Stop it and remove what it leaves behind. Return its exit status, or None if it was never started."""
        return None if self._child is None else self._child.stop()

    def look(self) -> bool:
        """Return whether it still works; a supervisor calls this about once a second."""
        return self.alive

    def explain(self) -> str:
        """Return why it failed, in one line."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit status, 128 + N if signal N killed it; None while it runs."""
        return None if self._child is None or self.alive else self._child.wait(5.0)

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        if self._child is None:
            raise OpsError(f"{self.name} was not started")
        return self._child.pid
