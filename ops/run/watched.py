"""Restarts a server that has ended, with growing pauses, and says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from landseer.ops.errors import OpsError
from landseer.ops.run.processes import how_ended
from landseer.ops.run.restarts import Restarts
from landseer.ops.run.server import Server


class Watched:
    """One supervised server: call `look` about twice a second."""

    def __init__(
        self,
        server: Server,
        restarts: Restarts,
        start: Callable[[threading.Event | None], None],
    ) -> None:
        self._server = server
        self._restarts = restarts
        self._start = start
        self._since = time.monotonic()

    def look(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Restart the server if it has ended, on the same ports; OpsError if it keeps ending."""
        if self._server.look():
            return
        reason = f"{how_ended(self._server.returncode)}: {self._server.explain()}"
        while not stop.is_set():
            delay = self._restarts.delay_after(time.monotonic() - self._since, reason)
            say(f"{self._restarts.name} ended ({reason}); restarting it in {delay:g} s")
            stop.wait(delay)
            self._since = time.monotonic()
            try:
                self._start(stop)
            except OpsError as error:
                self._server.stop()
                reason = str(error)
            else:
                say(f"{self._restarts.name} is ready again")
                return
