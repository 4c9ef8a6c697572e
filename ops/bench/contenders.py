"""A contender of the serving benchmark, and how it takes its turn."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from landseer.ops.bench.statistics import Round

Caller = Callable[[Any], Any]
"""Answers a request: a picture, or the id of one."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to get answers, with its concurrent callers."""

    name: str
    callers: tuple[Caller, ...]
    """Each runs in its own thread."""

    def turn(self, requests: Iterable[Any]) -> Round:
        """Answer all requests, each by the next free caller, and return the times."""
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for request in requests:
            waiting.put(request)
        if len(self.callers) == 1:
            return _timed(lambda: [_drain(self.callers[0], waiting)])
        with ThreadPoolExecutor(len(self.callers)) as threads:
            gate = threading.Barrier(len(self.callers) + 1)
            ready = [threads.submit(_after, gate, caller, waiting) for caller in self.callers]
            gate.wait()
            return _timed(lambda: [one.result() for one in ready])


def _timed(work: Callable[[], Sequence[list[float]]]) -> Round:
    began = time.perf_counter()
    latencies = work()
    seconds = time.perf_counter() - began
    return Round(seconds=seconds, latencies=tuple(one for some in latencies for one in some))


def _after(gate: threading.Barrier, caller: Caller, waiting: queue.SimpleQueue[Any]) -> list[float]:
    gate.wait()
    return _drain(caller, waiting)


def _drain(caller: Caller, waiting: queue.SimpleQueue[Any]) -> list[float]:
    """Call until no request is left; return the seconds of each call."""
    took: list[float] = []
    while True:
        try:
            request = waiting.get_nowait()
        except queue.Empty:
            return took
        began = time.perf_counter()
        caller(request)
        took.append(time.perf_counter() - began)
