"""Runs Milvus in a network of its own, and relays one port of this machine's loopback to it.

Milvus listens on all interfaces, on a dozen ports. In a network namespace there is only a loopback, which nobody else
reaches; the relay listens on a socket that was bound outside and came along. This file runs as a script in that
namespace, outlives Milvus, and uses only the standard library:

    python milvus_namespace.py FD COMMAND...

FD is the listening socket. For each line on stdin it starts COMMAND, and prints `ready PID` when Milvus is, or `ended`
and its status if it ends before. When stdin ends, as when the process that started it does, it kills Milvus and ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import signal
import socket
import struct
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import Process
from contextlib import suppress

PORT, HEALTH = 19_530, "http://127.0.0.1:9091/healthz"
PR_SET_PDEATHSIG = 1
_SET_FLAGS, _UP = 0x8914, 0x1
"""SIOCSIFFLAGS and IFF_UP."""


async def main(argv: list[str]) -> None:
    """Relay and start Milvus until stdin ends."""
    _raise_loopback()
    listener = socket.socket(fileno=int(argv[0]))
    server = await asyncio.start_server(_relay, sock=listener)
    milvus: Process | None = None
    while await asyncio.to_thread(sys.stdin.readline):
        milvus = await asyncio.create_subprocess_exec(*argv[1:], stdout=sys.stderr, preexec_fn=_die_with_us)
        print(await _ready(milvus), flush=True)
    if milvus is not None and milvus.returncode is None:
        milvus.kill()
        await milvus.wait()
    server.close()


def _raise_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def _ready(milvus: Process) -> str:
    while milvus.returncode is None:
        if await asyncio.to_thread(_healthy):
            return f"ready {milvus.pid}"
        await asyncio.sleep(0.1)
    return f"ended {milvus.returncode}"


def _healthy() -> bool:
    try:
        with urllib.request.urlopen(HEALTH, timeout=5) as answer:
            return b"OK" in answer.read()
    except (urllib.error.URLError, OSError):
        return False


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        theirs, to_them = await asyncio.open_connection("127.0.0.1", PORT)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pump(reader, to_them), _pump(theirs, writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(2**18):
            target.write(data)
            await target.drain()
    target.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
