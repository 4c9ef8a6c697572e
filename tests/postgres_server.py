"""A PostgreSQL server of our own, for tests: Debian's, on the loopback and a socket, its data in a folder of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from authorities import Pair

from landseer.ops.run.ports import LOOPBACK, free_port

PASSWORD = "correct-horse"


def programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`; None if PostgreSQL is not installed."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name), default=None)


class PostgresServer:
    """A server for the user `landseer`; over the network with `PASSWORD`, over its socket without one."""

    def __init__(self) -> None:
        """Make its data. PostgreSQL refuses root, so as root it is another user's."""
        folder = programs()
        assert folder is not None
        self._bin = folder
        self.data = Path(tempfile.mkdtemp(prefix="landseer-postgres-"))
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            shutil.chown(self.data, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.port = free_port()
        password = self.data / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        # Not synced: a machine that loses power is no case of a test.
        how = ["-U", "landseer", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", "-D", str(self.data / "data"), *how, f"--pwfile={password}", "--locale=C.UTF-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.data),
            "fsync": "off",
            "shared_buffers": "32MB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data / "data"), *options],
                cwd=self.data,
                stderr=log,
                stdout=log,
                **self._as,
            )
        until = time.monotonic() + 60
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.data), "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None and time.monotonic() < until, (self.data / "log").read_text()
            time.sleep(0.05)

    def create(self, name: str, *, template: str = "template1") -> str:
        """Create a database, or a copy of another one that nobody uses; return its URL over the socket."""
        self._run("createdb", "-h", str(self.data), "-p", str(self.port), "-U", "landseer", "-T", template, name)
        return f"postgresql://landseer@/{name}?host={self.data}&port={self.port}"

    def stop(self) -> None:
        """End it at once, as if it were killed; `start` recovers. May be called twice."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop all of its processes, and let them go on at the end."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        stopped = [main, *main.children(recursive=True)]
        for one in stopped:
            one.suspend()
        try:
            yield
        finally:
            for one in stopped:
                one.resume()

    def use_tls(self, pair: Pair) -> None:
        """Let callers over the network use TLS from now on."""
        folder = self.data / "data"
        for source, name in ((pair.cert, "server.crt"), (pair.key, "server.key")):
            shutil.copy(source, folder / name)
            (folder / name).chmod(0o600)
            if self._as:
                shutil.chown(folder / name, "postgres", "postgres")
        with (folder / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it, and delete its data."""
        self.stop()
        shutil.rmtree(self.data)

    def _run(self, program: str, *arguments: str) -> None:
        ran = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        assert not ran.returncode, ran.stderr


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """Give a server that runs; skip the test if none is installed."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
