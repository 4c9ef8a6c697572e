"""Runs Triton on a model repository, and removes everything that it leaves behind."""

from __future__ import annotations

import dataclasses
import http.client
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from landseer.ops.backend.model_settings import CONFIG_NAME, THREADS_VARIABLE
from landseer.ops.errors import OpsError
from landseer.ops.run.ports import LOOPBACK, free_port, require_free
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.server import Server
from landseer.ops.run.triton_install import TritonInstall, find_triton
from landseer.ops.run.triton_log import reasons

DRAIN_S = 10
"""Seconds that Triton has to finish requests in flight when it is stopped."""


@dataclass(frozen=True, kw_only=True)
class TritonConfig:
    """How to run Triton. A port of None means a free one."""

    repository: Path
    host: str = LOOPBACK
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    threads: int | None = None
    """Threads of each model whose config.pbtxt names none; None for all cores."""
    log_file: Path | None = None
    """Triton's whole log is appended to this file; None keeps only the last lines, in memory."""
    verbose: bool = False
    """Whether Triton logs informational lines."""
    traces: str | None = None
    """URL to which Triton sends the spans of requests with a `traceparent`: OTLP over HTTP, its only protocol."""
    on_line: Callable[[str], None] | None = None
    """Called with each line of the log, in a separate thread."""


class TritonServer(Server):
    """One Triton, and a relay before its gRPC front end. start() does not wait until it is ready; wait_ready() does."""

    name = "Triton"

    def __init__(self, config: TritonConfig) -> None:
        super().__init__()
        self.config = config
        self._relay: Child | None = None
        self._dead: set[int] = set()
        self._broken = ""

    def start(self) -> None:
        """Start the process; OpsError if something is missing. A restart uses the same ports."""
        if self.alive:
            raise OpsError(f"Triton is already running as process {self.pid}; stop it first")
        self.stop()
        models_of(self.config.repository)
        check_log_file(self.config.log_file)
        install = find_triton()
        self.config = _with_ports(self.config)
        self._dead, self._broken = set(), ""
        inner = free_port()
        self._child = _spawn(install, self.config, inner)
        self._relay = _spawn_relay(self.config, inner)

    def stop(self) -> int | None:
        """Stop both, Triton first: a relay that ends cuts off inferences, which may crash Triton."""
        status = super().stop()
        if self._relay is not None:
            self._relay.stop()
        return status

    def look(self) -> bool:
        """Return whether it still works; a supervisor calls this about once a second.

        When the stub process of a model dies, Triton 2.51 still reports the model as ready but fails every request to
        it. So this kills Triton when it sees the same dead stub twice, and the supervisor can restart it. A stub that
        was stopped on purpose is reaped in between.
        """
        running = super().alive
        dead = dead_stubs(self.pid) if running else set()
        if running and not self.alive:
            self._broken = "the relay before it died"
        elif dead & self._dead:
            self._broken = "the process of one of its models died; it may have been killed, or run out of memory"
        if self._broken:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.stop()
        self._dead = dead
        return self.alive

    @property
    def alive(self) -> bool:
        """Whether Triton and the relay run."""
        return super().alive and self._relay is not None and self._relay.poll() is None

    @property
    def returncode(self) -> int | None:
        """Triton's exit status, 128 + N if signal N killed it; None while it runs."""
        return None if self._child is None or self.alive else self.stop()

    @property
    def ready(self) -> bool:
        """Whether it runs, every model is loaded and the relay listens."""
        config = self.config
        return self.alive and _answers(config.host, config.http_port or 0) and _listens(config.host, config.grpc_port)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of Triton and the relay; the processes of the models are Triton's children."""
        return (self.pid, *([self._relay.pid] if self._relay else []))

    @property
    def grpc_url(self) -> str:
        """host:port of the gRPC service, as tritonclient expects it; the relay answers there."""
        return f"{self.config.host}:{self.config.grpc_port}"

    @property
    def http_url(self) -> str:
        """host:port of the HTTP service."""
        return f"{self.config.host}:{self.config.http_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{self.config.host}:{self.config.metrics_port}/metrics"

    def explain(self) -> str:
        """Return the reasons in the log, in one line."""
        if self._broken:
            return self._broken
        return "; ".join(reasons(self._child.lines if self._child else ())) or "it gave no reason"


def models_of(repository: Path) -> list[str]:
    """Return the names of a repository's models; OpsError if there is none.

    Triton's own `*` treats every folder as a model, including those of an unfinished export.
    """
    if not repository.is_dir():
        raise OpsError(f"model repository {repository} does not exist; run: python export/all.py")
    names = sorted(path.parent.name for path in repository.glob("[!.]*/config.pbtxt"))
    if not names:
        raise OpsError(f"model repository {repository} has no models; run: python export/all.py")
    return names


def check_log_file(path: Path | None) -> None:
    """Raise an OpsError if the file cannot be appended to."""
    if path is None:
        return
    try:
        path.open("a").close()
    except OSError as error:
        raise OpsError(f"cannot write the log file {path}: {error.strerror}; choose another") from error


def _with_ports(config: TritonConfig) -> TritonConfig:
    def chosen(port: int | None, flag: str) -> int:
        return free_port(host=config.host) if port is None else require_free(port, flag, host=config.host)

    return dataclasses.replace(
        config,
        http_port=chosen(config.http_port, "--http-port"),
        grpc_port=chosen(config.grpc_port, "--grpc-port"),
        metrics_port=chosen(config.metrics_port, "--metrics-port"),
    )


def _spawn(install: TritonInstall, config: TritonConfig, grpc_port: int) -> Child:
    prefix = f"landseer-{os.getpid()}-{secrets.token_hex(4)}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        install.lay_out_backends(folder)
        return Child.start(
            ChildConfig(
                command=_command(install, config, folder, prefix, grpc_port=grpc_port),
                env={**install.environment(), **({THREADS_VARIABLE: str(config.threads)} if config.threads else {})},
                remove=(str(folder), f"/dev/shm/{prefix}*"),
                grace_s=DRAIN_S + 5,
                log_file=config.log_file,
                on_line=config.on_line,
            )
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _spawn_relay(config: TritonConfig, inner: int) -> Child:
    host = f"[{config.host}]" if ":" in config.host else config.host
    listen = f"{host}:{config.grpc_port}"
    words = ["-m", "landseer.ops.run.relay", "--listen", listen, "--triton", f"{LOOPBACK}:{inner}"]
    return Child.start(ChildConfig(command=[sys.executable, *words], log_file=config.log_file, on_line=config.on_line))


def _command(
    install: TritonInstall, config: TritonConfig, backends: Path, shm_prefix: str, *, grpc_port: int
) -> list[str]:
    return [
        str(install.server),
        f"--model-repository={config.repository.resolve()}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models_of(config.repository)),
        f"--model-config-name={CONFIG_NAME}",
        "--disable-auto-complete-config",
        f"--http-address={config.host}",
        f"--http-port={config.http_port}",
        # Only the relay calls it.
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={config.host}",
        f"--metrics-port={config.metrics_port}",
        f"--exit-timeout-secs={DRAIN_S}",
        f"--log-info={str(config.verbose).lower()}",
        f"--allow-gpu-metrics={str(Path('/dev/nvidiactl').exists()).lower()}",
        *(_trace_args(config.traces) if config.traces else ()),
    ]


def _trace_args(url: str) -> list[str]:
    """Trace only requests with a `traceparent`: those are traced at any rate, and a rate of 0 skips all others."""
    settings = ("mode=opentelemetry", f"opentelemetry,url={url}", "level=TIMESTAMPS", "rate=0")
    return [f"--trace-config={setting}" for setting in settings]


def dead_stubs(pid: int) -> set[int]:
    """Return the children of a process that have ended and that it has not reaped: its zombies."""
    try:
        return {child.pid for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return set()


def _listens(host: str, port: int | None) -> bool:
    try:
        socket.create_connection((host, port or 0), timeout=2.0).close()
    except OSError:
        return False
    return True


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
