"""How fast the bare graph describes pictures in process: prepared ones, with nothing else to do."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.ops.backend.inprocess import full_graph
from landseer.ops.bulk.huge_pages import HUGE_PAGES
from landseer.ops.errors import OpsError

LOADING_S = 600.0
"""How long processes wait for each other to load the models."""


@dataclass(frozen=True, kw_only=True)
class GraphOrder:
    """What the processes need to know."""

    repository: Path
    profile: Profile
    outputs: tuple[str, ...]
    """Of `describe_full`, those that a record is made of."""
    threads: int
    """Of each process."""
    huge_pages: bool
    """Whether memory comes in such pages, as for `landseer bulk`."""
    seconds: float
    """For which to describe."""


@dataclass(frozen=True, kw_only=True)
class GraphRate:
    """The rate of several processes together."""

    processes: int
    threads: int
    huge_pages: bool
    rate: float
    """Pictures a second."""
    processor: float
    """Seconds of a core a picture."""


@dataclass(frozen=True, kw_only=True)
class _Described:
    pictures: int
    seconds: float
    processor: float


_others: Barrier | None = None
"""Of a process: where it waits until all have loaded their models."""


def graph_rate(order: GraphOrder, files: Sequence[Path], *, processes: int) -> GraphRate:
    """Describe pictures of files, again and again, in so many processes at once. OpsError."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes)
    with _environment(huge_pages=order.huge_pages), ProcessPoolExecutor(processes, spawn, _meet, (barrier,)) as pool:
        try:
            parts = [pool.submit(_describe, order, files[one::processes]) for one in range(processes)]
            found = [part.result() for part in parts]
        except (BrokenProcessPool, BrokenBarrierError) as error:
            raise OpsError(f"a process with the bare graph ended before it had described ({error!r})") from error
    return GraphRate(
        processes=processes,
        threads=order.threads,
        huge_pages=order.huge_pages,
        rate=sum(one.pictures / one.seconds for one in found),
        processor=sum(one.processor for one in found) / sum(one.pictures for one in found),
    )


@contextmanager
def _environment(*, huge_pages: bool) -> Iterator[None]:
    """Set what processes that start meanwhile inherit."""
    name, value = HUGE_PAGES
    before = os.environ.pop(name, None)
    if huge_pages:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _meet(barrier: Barrier) -> None:
    global _others  # noqa: PLW0603
    _others = barrier


def _describe(order: GraphOrder, files: Sequence[Path]) -> _Described:
    assert _others is not None
    pixels = [prepare(file.read_bytes(), profile=order.profile).pixels[None] for file in files]
    graph = full_graph(order.repository, order.profile, order.outputs, threads=order.threads)
    for one in {some.shape: some for some in pixels}.values():
        graph.describe(one)
    _others.wait(LOADING_S)
    began, spent, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < order.seconds:
        graph.describe(pixels[count % len(pixels)])
        count += 1
    return _Described(pictures=count, seconds=time.monotonic() - began, processor=time.process_time() - spent)
