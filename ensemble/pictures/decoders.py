"""Decoding in processes of their own: a picture that crashes a decoder, or keeps it forever, fails alone.

Image decoders are C code that reads what strangers send. Here a crash ends a process that has nothing else to do, and
an endless loop ends at a limit of processor time; a new process takes its place. Both sides copy the picture and its
pixels once. That takes 1.5 ms of processor time more than decoding here for a picture of 640 px (of 13 ms), 2 ms for
one of 2 megapixels and 0.9 MB (of 29), 6 ms for one of 12 megapixels and 5.8 MB (of 104), each with a thumbnail.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput, LandseerError
from landseer.ensemble.pictures.decoder import LARGEST, Call, read, read_into, write
from landseer.ensemble.pictures.nursery import GONE
from landseer.ensemble.pictures.pictures import Prepared, Region

log = logging.getLogger(__name__)
T = TypeVar("T")
Decode = Callable[..., Any]
"""Runs `prepare` or `prepare_regions`, here or in another process; takes the function, then its arguments."""

PICTURES = 1000
"""After which a decoder is replaced, so that what leaks in it stays small."""
_PATIENCE = 6
"""Times the processor time: how long to wait for a decoder, which shares the cores with others."""
_MOST_SIDE = 1 << 15
_KEPT_BYTES = 8 << 20
_REPLY_S = 60.0
"""How long starting the nursery may take; on a busy machine that is seconds."""
_ENVIRONMENT = {
    # A process with threads should not be forked, and decoding needs none.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Memory of up to 64 MiB stays with a decoder. By default glibc gives it back after each picture, and to get it
    # anew, page by page, takes 5 ms of the 15 for a picture of 640 px.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
_REMEDY = "save it anew, as JPEG for example, and send that"


def decode_here(work: Callable[..., T], data: bytes, *rest: Any, **options: Any) -> T:
    """Run `prepare` or `prepare_regions` in this process: a picture that crashes the decoder ends the server."""
    return work(data, *rest, **options)


class Decoders:
    """Decoders, as many as threads ask for at once. Threads may share it.

    memory: bytes of address space that each may take; seconds: of processor time for a picture.
    """

    def __init__(self, *, memory: int, seconds: float) -> None:
        self._memory, self._seconds = memory, max(1, math.ceil(seconds))
        self._nursery = _Nursery()
        self._idle: list[_Decoder] = []
        self._closed = False

    def start(self) -> None:
        """Start the process that decoders are forked from, without waiting for it."""
        self._nursery.start()

    def run(self, work: Callable[..., T], data: bytes, *rest: Any, **options: Any) -> T:
        """Run `prepare` or `prepare_regions` on a picture; blocks.

        Its InvalidInput, and one of kind `crash`, `time` or `memory` for a picture that a decoder does not survive.
        """
        call = Call(size=len(data), work=work, rest=rest, options=options, seconds=self._seconds)  # type: ignore[arg-type]
        message = pickle.dumps(call)
        found: T
        try:
            found = self._tried(message, data)
        except _Killed:
            # Not by the picture: by the kernel, for lack of memory, or by an operator.
            log.warning("a decoder was killed; trying its picture again")
            found = self._again(message, data)
        return found

    def close(self) -> None:
        """End the decoders. None may be decoding. May be called twice."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        self._nursery.close()

    def _again(self, message: bytes, data: bytes) -> Any:
        try:
            return self._tried(message, data)
        except _Killed:
            raise _refused(data, "was killed twice, perhaps for lack of memory", "crash") from None

    def _tried(self, message: bytes, data: bytes) -> Any:
        decoder = self._taken()
        try:
            answer = decoder.ask(message, data, _PATIENCE * self._seconds)
            found = self._understood(decoder, answer, data)
        except InvalidInput:
            self._keep(decoder)
            raise
        except TimeoutError:
            decoder.end()
            raise _refused(data, f"did not end within {_PATIENCE * self._seconds} s", "time") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise self._blamed(decoder.end(), data, error) from error
        except BaseException:
            decoder.end()
            raise
        self._keep(decoder)
        return found

    def _taken(self) -> _Decoder:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        try:
            return _Decoder(self._nursery, self._memory)
        except OSError as error:
            log.exception("no decoder could be started")
            raise LandseerError(f"the picture was not decoded: no decoder could be started ({error})") from error

    def _keep(self, decoder: _Decoder) -> None:
        decoder.forget()
        if decoder.answered < PICTURES and not self._closed:
            self._idle.append(decoder)
        else:
            decoder.end()

    def _understood(self, decoder: _Decoder, answer: dict[str, Any], data: bytes) -> Any:
        """Return the pictures of an answer, or raise its error. ValueError and others for one that makes no sense."""
        if "invalid" in answer:
            field, description, kind = map(str, answer["invalid"])
            raise InvalidInput(field, description, kind=kind)
        if "memory" in answer:
            decoder.answered = PICTURES  # Memory that leaked must not refuse the next one, too.
            raise _refused(data, f"takes more than {self._memory >> 20:,} MiB of memory", "memory", died=False)
        if "failed" in answer:
            log.error("a decoder failed:\n%s", answer["failed"])
            raise LandseerError("decoding failed unexpectedly; the server's log has the details")
        pictures = list(decoder.pictures(answer["pictures"]))
        return pictures if answer["many"] is True else pictures[0]

    def _blamed(self, status: int, data: bytes, error: Exception) -> Exception:
        """Return the error for a decoder that ended with a status, negative for a signal."""
        if status == -signal.SIGXCPU:
            return _refused(data, f"took more than {self._seconds} s of processor time", "time")
        if isinstance(error, OSError | EOFError) and status == -signal.SIGKILL and not self._closed:
            return _Killed()
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return _refused(data, f"crashed ({name})", "crash")


class _Killed(Exception):
    """A decoder was killed from outside."""


class _Decoder:
    """A decoder, as the server sees it."""

    def __init__(self, nursery: _Nursery, memory: int) -> None:
        self._nursery = nursery
        self.answered = 0
        """Number of pictures."""
        self._shared = os.memfd_create("landseer-picture", os.MFD_CLOEXEC)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._pid = nursery.fork(theirs, self._shared, memory)
            except BaseException:
                self.close()
                raise

    def ask(self, message: bytes, data: bytes, timeout_s: float) -> dict[str, Any]:
        """Send a call and return its answer. TimeoutError; OSError or EOFError if the process ended."""
        self.answered += 1
        write(self._shared, [data])
        self._socket.settimeout(timeout_s)
        self._socket.send(message)
        told = self._socket.recv(LARGEST)
        if not told:
            raise EOFError("the decoder ended")
        answer: dict[str, Any] = json.loads(told)
        return answer

    def pictures(self, described: list[dict[str, Any]]) -> Iterator[Prepared]:
        """Yield the pictures that the process left in the file, which is empty afterwards."""
        at = 0
        for one in described:
            height, width = map(int, one["shape"])
            if not (0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE):
                raise ValueError(f"got {height} x {width} pixels")
            pixels = np.empty((height, width, 3), np.uint8)
            read_into(self._shared, pixels.data.cast("B"), at)
            at += pixels.nbytes
            thumbnail = read(self._shared, min(int(one["thumbnail"]), LARGEST), at)
            at += len(thumbnail)
            x, y, across, down = map(float, one["region"])
            region = Region(x=x, y=y, width=across, height=down)
            size = map(int, one["size"])
            yield Prepared(pixels=pixels, width=next(size), height=next(size), region=region, thumbnail=thumbnail)

    def forget(self) -> None:
        """Free the file's memory if a picture made it large. What is small is written over by the next one."""
        if os.fstat(self._shared).st_size > _KEPT_BYTES:
            os.ftruncate(self._shared, 0)

    def end(self) -> int:
        """Kill the process; return how it ended, or SIGKILL if nobody knows."""
        try:
            return self._nursery.end(self._pid)
        finally:
            self.close()

    def close(self) -> None:
        """Tell the process to end."""
        self._socket.close()
        os.close(self._shared)


class _Nursery:
    """The process that decoders are forked from. It is started again if it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        with self._lock:
            self._connected()

    def fork(self, theirs: socket.socket, shared: int, memory: int) -> int:
        """Return the process id of a new decoder with these ends."""
        files = [theirs.fileno(), shared]
        return int(self._asked(f"START {memory}", files))

    def end(self, pid: int) -> int:
        """Kill a decoder; return how it ended."""
        answer = self._asked(f"END {pid}", [])
        return -signal.SIGKILL if answer == GONE else int(answer)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _asked(self, message: str, files: list[int]) -> str:
        with self._lock:
            with contextlib.suppress(OSError):
                return self._once(message, files)
            log.warning("the process that decoders are forked from is gone; starting another")
            self._drop()
            return self._once(message, files)

    def _once(self, message: str, files: list[int]) -> str:
        connection = self._connected()
        socket.send_fds(connection, [message.encode()], files)
        answer = connection.recv(LARGEST)
        if not answer:
            raise ConnectionError("the process that decoders are forked from ended; see its messages above")
        return answer.decode()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(_REPLY_S)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "landseer.ensemble.pictures.nursery"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=os.environ | _ENVIRONMENT,
                    start_new_session=True,
                )
            self._socket = ours
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.kill()
            self._process.wait()
            self._socket = self._process = None


def memory_of(limits: Limits) -> int:
    """Return the bytes of address space that decoding a picture within the limits may take."""
    # Grey PNG of 16 bits takes most, 16 bytes a pixel while they are scaled to 8.
    return 20 * limits.max_pixels + 4 * limits.max_bytes + (256 << 20)


def _refused(data: bytes, what: str, kind: str, *, died: bool = True) -> InvalidInput:
    """Return the error for a picture that a decoder does not survive, and log how to find it again."""
    if died:
        digest = sha256(data).hexdigest()
        log.warning("a picture of %d bytes ended its decoder, which %s; SHA-256 %s", len(data), what, digest)
    return InvalidInput("image", f"got a picture whose decoding {what}; {_REMEDY}", kind=kind)
