"""A Milvus server of our own, for tests and measurements: from PyPI, on the loopback alone."""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from landseer.ops.errors import OpsError
from landseer.ops.run import milvus_namespace
from landseer.ops.run.ports import LOOPBACK, free_port

VERSION = "2.3.5"
HOME = Path("var") / f"milvus-{VERSION}"
PASSWORD = "root:Milvus"
"""The user and the password of a new server that asks for them."""
_HOLE = re.compile(r"\{\{\s*(\w+)(?:\(\w+\))?(?::\s*(.*?))?\s*\}\}")
SESSION_S = 3
"""A Milvus that was killed keeps its place for so long, and the next one waits; and one that is so slow ends itself."""


def installed(home: Path = HOME) -> Path:
    """Return the folder of Milvus' program; installed from PyPI the first time (58 MB). OpsError.

    It has no Python packages in common with ours, so it needs a folder and no environment.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(prefix="milvus-", dir=home.parent) as made:
                _install(Path(made) / "packages", Path(made) / "done")
                (Path(made) / "done").rename(home)
    return home.resolve()


def _install(packages: Path, done: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    ran = subprocess.run(
        [*pip, "--target", str(packages), f"milvus=={VERSION}"], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise OpsError(f"Milvus {VERSION} cannot be installed from PyPI: {' '.join(ran.stderr.split())[-300:]}")
    data = packages / "milvus" / "data"
    done.mkdir()
    for name in ("config.yaml.template", "glog.conf"):
        shutil.copy(data / name, done / name)
    for packed in data.glob("bin/*.lzma"):
        with lzma.open(packed) as source, (done / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        (done / packed.stem).chmod(0o755)


class MilvusServer:
    """A Milvus in a network of its own; `port` of the loopback leads to it, whether or not it runs."""

    def __init__(
        self, program: Path, data: Path, settings: Mapping[str, str] | None = None, *, session_s: int = SESSION_S
    ) -> None:
        """program: of `installed`. data: a folder that it may fill. settings: by the names of its template.

        session_s: see `SESSION_S`; more for a busy machine.

        OpsError where no network namespace can be made: that needs root, or user namespaces.
        """
        self.data, self.pid = data, 0
        self._program = program
        self._write_settings(settings or {}, session_s)
        self._listener = socket.create_server((LOOPBACK, free_port()))
        self.port = int(self._listener.getsockname()[1])
        self._log = (data / "milvus.log").open("ab")
        self._room = self._open_room()

    def start(self) -> None:
        """Start it, and wait until it says that it is healthy. OpsError if it ends instead."""
        if self._room.stdin is None or self._room.stdout is None:
            raise OpsError("Milvus has been stopped; make another server")
        self._room.stdin.write("start\n")
        self._room.stdin.flush()
        said = self._room.stdout.readline().split()
        if len(said) != 2 or said[0] != "ready":
            lines = (self.data / "milvus.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = [line for line in lines if line.startswith("panic:")][-1:] or lines[-1:]
            raise OpsError(f"Milvus did not start: {' '.join(said) or 'no network of its own'}; {''.join(why)[-300:]}")
        self.pid = int(said[1])

    def kill(self) -> None:
        """Kill it with -9; `start` starts it again on the same data."""
        os.kill(self.pid, signal.SIGKILL)

    def processor_s(self) -> float:
        """Return the processor time that it has used, over all cores."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def own_bytes(self) -> int:
        """Return the memory of its process's own (RssAnon)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    def stop(self) -> None:
        """End it and its network. May be called twice."""
        if self._room.stdin is not None:
            self._room.stdin.close()
            self._room.stdin = None
        try:
            self._room.wait(20)
        except subprocess.TimeoutExpired:
            self._room.kill()
            self._room.wait()
        self._listener.close()
        self._log.close()

    def _open_room(self) -> subprocess.Popen[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        script = [sys.executable, "-I", "-S", milvus_namespace.__file__, str(self._listener.fileno())]
        # Milvus locks a file in /run, whatever its settings say: each server has one of its own.
        alone = ["unshare", *user, "--net", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
        return subprocess.Popen(
            [*alone, *script, str(self._program / "milvus"), "run", "standalone"],
            cwd=self.data,
            env={
                **os.environ,
                "DEPLOY_MODE": "STANDALONE",
                "LD_LIBRARY_PATH": str(self._program),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            pass_fds=(self._listener.fileno(),),
        )

    def _write_settings(self, settings: Mapping[str, str], session_s: int) -> None:
        configs, stored, logs = (self.data / name for name in ("configs", "data", "logs"))
        for folder in (configs, stored, logs):
            folder.mkdir(parents=True, exist_ok=True)
        filled = {
            "etcd_log_path": str(logs / "etcd.log"),
            "system_log_path": str(logs),
            "etcd_data_dir": str(stored / "etcd.data"),
            "local_storage_dir": str(stored),
            "rocksmq_data_dir": str(stored / "rocksmq"),
            **settings,
        }
        text = (self._program / "config.yaml.template").read_text(encoding="utf-8")
        changes = {"    ttl: 30 #": f"    ttl: {session_s} #", "log:\n  level: info #": "log:\n  level: warn #"}
        for before, after in changes.items():
            if before not in text:
                raise OpsError(f"Milvus' template lacks {before!r}; {self._program} is not of {VERSION}")
            text = text.replace(before, after)
        text = _HOLE.sub(lambda hole: filled.get(hole[1], hole[2] or ""), text)
        (configs / "milvus.yaml").write_text(text, encoding="utf-8")
        shutil.copy(self._program / "glog.conf", configs / "glog.conf")
