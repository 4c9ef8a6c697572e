"""Runs one command so that no part of it outlives the process that started it.

This file runs as a script and uses only the standard library. It stands between a launcher and a server:

    launcher ── guard ── server ── whatever the server starts

The guard stops the server on SIGTERM or SIGINT, and when the launcher is gone, for example killed with -9. It then
ends the server's whole process group, adopts and reaps its orphans, and removes the files that the server may have
left. It polls its parent's id: PR_SET_PDEATHSIG in the server alone would fire as soon as the *thread* that started it
ends, and would leave the server's children and shared memory behind.

It reads one JSON object from stdin: `command`, `parent` (the launcher's pid), `grace_s` (from SIGTERM to SIGKILL) and
`remove` (patterns of files and folders). They are not arguments, so that a search for the server's process by name does
not find the guard. Its one argument is a file descriptor, to which it writes the server's pid.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHED = (*STOP, signal.SIGCHLD)
POLL_S = 0.25
REAP_S = 5.0


def main(argv: list[str]) -> int:
    """Run the command and return its exit status, or 128 + N if signal N ended it."""
    job = json.load(sys.stdin)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        pid = _spawn(job["command"], int(argv[0]), libc)
        status = _watch(pid, job["parent"], job["grace_s"])
        end_group(pid)
    finally:
        remove(job["remove"])
    return status if status >= 0 else 128 - status


def _spawn(command: list[str], report: int, libc: ctypes.CDLL) -> int:
    def before_exec() -> None:
        # If the guard itself is killed with -9, the server still gets SIGTERM.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    # A new session: Ctrl-C in the terminal reaches only the launcher, which stops its servers in order.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=before_exec,  # noqa: PLW1509 (the guard has one thread)
    )
    process.returncode = 0  # reaped below, not by subprocess
    os.write(report, f"{process.pid}\n".encode())
    os.close(report)
    return process.pid


def _watch(pid: int, parent: int, grace_s: float) -> int:
    asked: float | None = None
    while (status := _reap(pid)) is None:
        got = signal.sigtimedwait(WATCHED, POLL_S)
        stop = (got is not None and got.si_signo in STOP) or os.getppid() != parent
        if stop and asked is None:
            asked = time.monotonic()
            os.kill(pid, signal.SIGTERM)
        if asked is not None and time.monotonic() - asked > grace_s:
            _signal_group(pid)
    return status


def _reap(pid: int) -> int | None:
    """Reap all ended children and orphans. Return the server's status once it has ended."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                return os.waitstatus_to_exitcode(ended[1])
    return None


def end_group(pid: int) -> None:
    """Kill the rest of the server's process group and wait until it is gone."""
    until = time.monotonic() + REAP_S
    while _signal_group(pid) and time.monotonic() < until:
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)


def _signal_group(pid: int) -> bool:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def remove(patterns: Iterable[str]) -> None:
    """Remove the files and folders that match."""
    for path in (found for pattern in patterns for found in glob.glob(pattern)):  # noqa: PTH207
        with suppress(OSError):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)  # noqa: PTH108, PTH112


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
