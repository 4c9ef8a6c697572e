"""A decoder: a process that turns untrusted bytes into pixels, with limits, so that only it dies of a bad picture.

It gets a call over a socket, and the picture in a file in memory. It answers in JSON, and leaves the pixels in the
file: what comes out of a decoder that was taken over must do no harm, so the server unpickles nothing.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.pictures.pictures import Prepared

LARGEST = 1 << 17
"""Bytes of a message."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What to do with the picture in the file."""

    size: int
    """Bytes of the picture."""
    work: Callable[..., Prepared | list[Prepared]]
    """`prepare` or `prepare_regions`."""
    rest: tuple[Any, ...]
    options: dict[str, Any]
    seconds: int
    """Of processor time. After these the kernel ends the process (SIGXCPU)."""


def decode_for(server: socket.socket, shared: int, *, memory: int) -> None:
    """Answer calls until the server closes the socket. memory: bytes of address space, beyond what is used now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while message := server.recv(LARGEST):
        call: Call = pickle.loads(message)
        _limit_time(call.seconds)
        answer = _answer(call, shared)
        server.send(json.dumps(answer).encode())


def _limit_time(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _answer(call: Call, shared: int) -> dict[str, Any]:
    try:
        found = call.work(read(shared, call.size), *call.rest, **call.options)
    except InvalidInput as error:
        return {"invalid": [error.field, error.description, error.kind]}
    except MemoryError:
        return {"memory": True}
    except Exception:
        return {"failed": traceback.format_exc()[-4000:]}
    pictures = found if isinstance(found, list) else [found]
    write(shared, [part for one in pictures for part in (one.pixels.data.cast("B"), one.thumbnail)])
    return {"many": isinstance(found, list), "pictures": [_described(one) for one in pictures]}


def _described(one: Prepared) -> dict[str, Any]:
    region = one.region
    return {
        "shape": one.pixels.shape[:2],
        "size": [one.width, one.height],
        "region": [region.x, region.y, region.width, region.height],
        "thumbnail": len(one.thumbnail),
    }


def read(file: int, size: int, at: int = 0) -> bytes:
    """Read bytes of a file from a place. ValueError if it has fewer."""
    data = os.pread(file, size, at)
    if len(data) < size:
        data = b"".join((data, *_rest(file, size - len(data), at + len(data))))
    return data


def _rest(file: int, size: int, at: int) -> Iterator[bytes]:
    """Yield what one call did not read: above 2 GiB."""
    while size:
        part = os.pread(file, size, at)
        if not part:
            raise ValueError(f"got the end of the file at {at}, expected {size} bytes more")
        yield part
        size, at = size - len(part), at + len(part)


def read_into(file: int, view: memoryview, at: int) -> None:
    """Fill a view from a place of a file. ValueError if it has fewer bytes."""
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], at + done)
        if not count:
            raise ValueError(f"got {done} bytes at {at}, expected {len(view)}")
        done += count


def write(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write parts one after the other, from the start of a file."""
    at = 0
    for part in parts:
        view = memoryview(part)
        while view:
            count = os.pwrite(file, view, at)
            view, at = view[count:], at + count
