"""The process that decoders are forked from: `python -m landseer.ensemble.pictures.nursery`, with a socket as stdin.

The server has many threads, from which one must not fork, and starting Python anew takes a second. So this process,
which has one thread and the readers of all formats, forks a decoder in milliseconds. It ends them, too: as they are its
children, none of their process ids is ever that of another program.

Messages: START MEMORY, with a socket and a file, forks a decoder and answers its process id; END PID kills it and
answers how it ended, as `os.waitstatus_to_exitcode`. It ends when the server does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from landseer.ensemble.pictures.decoder import decode_for
from landseer.ensemble.pictures.pictures import load_readers

LARGEST = 256
"""Bytes of a message."""
GONE = "gone"
"""Answer to END for a process that is not our child."""


def main() -> int:
    """Fork and end decoders until the server closes the socket."""
    # Ctrl-C and systemd tell every process; the requests in flight must still be decoded.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    load_readers()
    with socket.socket(fileno=os.dup(0)) as server:
        while True:
            message, files, _, _ = socket.recv_fds(server, LARGEST, 2)
            if not message:
                return 0
            what, value = message.decode().split()
            server.send((_fork(server, files, int(value)) if what == "START" else _end(int(value))).encode())


def _fork(server: socket.socket, files: list[int], memory: int) -> str:
    pid = os.fork()
    if pid == 0:
        server.close()
        os.close(0)
        decode_for(socket.socket(fileno=files[0]), files[1], memory=memory)
        os._exit(0)
    for file in files:
        os.close(file)
    return str(pid)


def _end(pid: int) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    try:
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    except ChildProcessError:
        return GONE


if __name__ == "__main__":
    sys.exit(main())
