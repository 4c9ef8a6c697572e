"""Child processes that end with the process that started them, and whose output is read line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from landseer.ops.errors import OpsError
from landseer.ops.run import guard

KEPT_LINES = 400


@dataclass(frozen=True, kw_only=True)
class ChildConfig:
    """What to run, and what to remove afterwards."""

    command: Sequence[str]
    env: Mapping[str, str] | None = None
    """The whole environment; None for ours."""
    grace_s: float = 15.0
    """Seconds from SIGTERM to SIGKILL."""
    remove: Sequence[str] = ()
    """Patterns of files and folders to remove after the child has ended, in whatever way."""
    log_file: Path | None = None
    """The output is also appended to this file."""
    on_line: Callable[[str], None] | None = None
    """Called with each line of the output, in a separate thread."""


@dataclass(kw_only=True)
class Child:
    """A running command, with a guard (see guard.py); its output is read line by line."""

    config: ChildConfig
    pid: int
    """Process id of the command itself."""
    watcher: subprocess.Popen[str]
    """The guard."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    """The last lines of stdout and stderr, merged."""
    reader: threading.Thread | None = None

    @classmethod
    def start(cls, config: ChildConfig) -> Child:
        """Start the command; OpsError if it cannot be started."""
        receive, report = os.pipe()
        try:
            watcher = _start_guard(config, report)
        finally:
            os.close(report)
        with os.fdopen(receive) as answer:
            pid = answer.readline().strip()
        if not pid:
            reason = (watcher.communicate()[0].strip().splitlines() or ["no output"])[-1]
            raise OpsError(f"could not start {config.command[0]}: {reason}")
        child = cls(config=config, pid=int(pid), watcher=watcher)
        child.reader = threading.Thread(target=child._read, name=f"log of {pid}", daemon=True)
        child.reader.start()
        return child

    def poll(self) -> int | None:
        """Return None while it runs, then its exit status, 128 + N for signal N."""
        return self.watcher.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends and return its exit status; subprocess.TimeoutExpired after `timeout` seconds."""
        status = self.watcher.wait(timeout)
        if status < 0:  # the guard itself was killed, so clean up here
            guard.end_group(self.pid)
            guard.remove(self.config.remove)
        if self.reader is not None:
            self.reader.join(1.0)
        return status

    def stop(self) -> int:
        """Stop it and its children, clean up, and return its exit status. Does no harm if it has ended."""
        if self.watcher.poll() is None:
            self.watcher.terminate()
        try:
            return self.wait(self.config.grace_s + 10)
        except subprocess.TimeoutExpired:
            self.watcher.kill()
            return self.wait()

    def _read(self) -> None:
        if self.watcher.stdout is None:
            return
        with self.watcher.stdout as stream, _appender(self.config.log_file) as append:
            for raw in stream:
                line = raw.rstrip("\n")
                self.lines.append(line)
                append(raw)
                if self.config.on_line is not None:
                    self.config.on_line(line)


def _start_guard(config: ChildConfig, report: int) -> subprocess.Popen[str]:
    job = {"command": config.command, "parent": os.getpid(), "grace_s": config.grace_s, "remove": config.remove}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(report)],
        env=None if config.env is None else dict(config.env),
        pass_fds=(report,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:  # if the guard cannot start, its stdout says why
            json.dump(job, stdin)
        process.stdin = None
    return process


@contextmanager
def _appender(path: Path | None) -> Iterator[Callable[[str], object]]:
    if path is None:
        yield lambda line: None
        return
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield file.write


def how_ended(status: int | None) -> str:
    """Describe an exit status in words."""
    return f"killed by signal {status - 128}" if status is not None and status > 128 else f"status {status}"


class Stopping:
    """Turns SIGINT and SIGTERM into an event while its block runs. For the main thread only."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.event.set()
