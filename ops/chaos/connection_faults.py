"""Faults of connections: idle ones in masses, slow readers, proxies that freeze or forget."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Sequence

import psutil

from landseer.client.blocking import BlockingSearchClient
from landseer.client.errors import LandseerClientError
from landseer.ops.chaos.calls import OK, Call
from landseer.ops.chaos.fault import CannotTry, Fault
from landseer.ops.chaos.proxy import Proxy
from landseer.ops.chaos.scene import Scene

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 client says first: the preface and empty settings."""
SPARE_FILES = 200
CLOSED_WITHIN_S = 10.0
READERS = 8
BYTES_A_SECOND = 1000.0


class Idle(Fault):
    """Connections that open HTTP/2 and say nothing more."""

    def __init__(self, count: int) -> None:
        self.name = f"{count:,} idle connections"
        self._count = count
        self.allowed = frozenset({OK})
        self._sockets: list[socket.socket] = []

    def prepare(self, scene: Scene) -> None:
        """Allow this process as many files."""
        _allow_files(self._count + SPARE_FILES)

    def inject(self, scene: Scene) -> None:
        """Open them."""
        host, _, port = scene.address.rpartition(":")
        self._before = _files(scene)
        for _ in range(self._count):
            idle = socket.create_connection((host, int(port)), timeout=10.0)
            idle.sendall(PREFACE)
            self._sockets.append(idle)
        self._most = _files(scene)

    def heal(self, scene: Scene) -> None:
        """Close them."""
        for idle in self._sockets:
            idle.close()

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """The orchestrator must have taken them, and must have closed them too."""
        until = time.monotonic() + CLOSED_WITHIN_S
        while (left := _files(scene) - self._before) > self._count // 100 and time.monotonic() < until:
            time.sleep(0.1)
        self.note = f"the orchestrator held {self._most - self._before:,} more files, and {left:,} afterwards"
        return [f"{left:,} files stayed open"] if left > self._count // 100 else []


class SlowReaders(Fault):
    """Clients that read large answers slowly, beside the others."""

    name = f"{READERS} clients that read {BYTES_A_SECOND / 1000:g} KB a second"
    allowed = frozenset({OK})

    def inject(self, scene: Scene) -> None:
        """Let them ask."""
        self._proxy = Proxy(scene.address)
        self._proxy.rate = BYTES_A_SECOND
        self._proxy.start()
        self._threads = [threading.Thread(target=self._read, daemon=True) for _ in range(READERS)]
        for thread in self._threads:
            thread.start()

    def heal(self, scene: Scene) -> None:
        """Cut them off."""
        self._proxy.stop()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        with contextlib.suppress(LandseerClientError), BlockingSearchClient(self._proxy.address, timeout=60.0) as slow:
            slow.search("anchor/0", top_k=1000, explain=True)


class Proxied(Fault):
    """A proxy that freezes or forgets, between callers and orchestrator or between orchestrator and Triton."""

    def __init__(self, where: str, how: str) -> None:
        """where: `orchestrator` or `Triton`, before which it stands. how: `frozen`, until it thaws, or `forgotten`.

        A forgotten connection stays open and forwards nothing more, for good; its cause is gone at once, as new
        connections work.
        """
        said = "frozen by a proxy, then thawed" if how == "frozen" else "forgotten by a proxy for good"
        self.name = f"connections to {where} {said}"
        self._where, self._how = where, how
        if how == "forgotten":
            # Only silence tells: gRPC's keepalive needs its time.
            self.hold_s, self.limit_s = 0.0, 20.0

    def prepare(self, scene: Scene) -> None:
        """Start the proxy, and let the orchestrator or the callers use it."""
        if self._where == "Triton":
            self._proxy = Proxy(scene.triton.grpc_url)
            self._proxy.start()
            scene.serve(triton=self._proxy.address)
        else:
            self._proxy = Proxy(scene.address)
            self._proxy.start()

    def inject(self, scene: Scene) -> None:
        """Freeze or forget."""
        (self._proxy.freeze if self._how == "frozen" else self._proxy.lose)()

    def heal(self, scene: Scene) -> None:
        """Thaw."""
        self._proxy.thaw()

    def address(self, scene: Scene) -> str:
        """Through the proxy, if it stands before the orchestrator."""
        return scene.address if self._where == "Triton" else self._proxy.address

    def clear_up(self, scene: Scene) -> None:
        """Do without the proxy."""
        if self._where == "Triton":
            scene.serve(triton=scene.triton.grpc_url)
        self._proxy.stop()


def _files(scene: Scene) -> int:
    return int(psutil.Process(scene.orchestrator.pid).num_fds())


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files to what it may; CannotTry if that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise CannotTry(f"this process may open {hard:,} files; the fault needs {count:,}: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
