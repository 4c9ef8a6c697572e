"""`make overload`: what a stack does with more load than it can answer, and with many large pictures at once."""

from __future__ import annotations

import argparse
import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.client.commands.connection import seconds
from landseer.ensemble.cores import cores
from landseer.ops.arguments import positive
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.cpu_time import cpu_time
from landseer.ops.load.callers import Callers, Calls
from landseer.ops.load.overload_report import Burst, Load, OverloadReport, goodput_holds, markdown
from landseer.ops.load.photos import make_photos
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.stack import Stack, StackConfig
from landseer.ops.scratch import scratch_folder
from landseer.ops.watch.scrape import fetch
from landseer.v1 import index_pb2, search_pb2

PHOTOS = 40
CAPACITY_CALLERS = 3
PATIENT_S = 60.0
"""A deadline that does not matter."""
WAITING = 24
"""Callers who wait for their answers, as in the fault that this holds: 1 of 96 was answered."""
TIMES = 4
"""How many times the capacity arrives."""
ROUNDS = 2
"""Of each load, with the capacity measured between them: a machine's speed changes meanwhile."""
LOOKUPS_S = 8.0
"""Searches by id that arrive in a second. One caller who waits for each answer would take a core of his own."""
BURST_BYTES = 19 * 10**6
"""About the largest picture that a server takes by default."""
BURST_DEADLINE_S = 20.0
LIGHT = search_pb2.SearchRequest(
    first_stage=search_pb2.FIRST_STAGE_GLOBAL,
    reranking=search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_NONE),
)
"""The stages of searches with --light."""
LOOK_S = 0.1
"""Between two looks at the memory."""
SETTLE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """A running stack and what is sent to it."""

    stack: Stack
    pictures: Sequence[bytes]
    lookups: Sequence[bytes]
    deadline_s: float
    length_s: float
    burst: int
    """Number of searches with large pictures at once."""

    async def run(self, requests: Sequence[bytes], how: Callable[[Callers], Awaitable[Calls]], *, by_s: float) -> Calls:
        """Let callers with a deadline of `by_s` search as `how` says."""
        callers = Callers(self.stack.search_address, requests, deadline_s=by_s)
        try:
            return await how(callers)
        finally:
            await callers.close()

    async def unloaded(self) -> tuple[Calls, Calls]:
        """Return the searches by picture of one caller, with some by id beside them, and those by id alone."""
        lookups = await self._by_id(self.length_s, by_s=PATIENT_S)
        calls, _ = await self._beside(lambda one: one.waiting(1, self.length_s), self.length_s, by_s=PATIENT_S)
        return calls, lookups

    async def capacity(self) -> float:
        """Return the answers per second of a few callers without a deadline, searches by id beside them."""
        length_s = self.length_s / 2
        calls, _ = await self._beside(lambda one: one.waiting(CAPACITY_CALLERS, length_s), length_s, by_s=PATIENT_S)
        return calls.goodput

    async def load(self, name: str, offered: str, how: Callable[[Callers], Awaitable[Calls]], before: float) -> Load:
        """Search by picture as `how` says, and by id beside it. before: the capacity measured just before."""
        rounds, lookups, capacity = list[Calls](), list[Calls](), [before]
        async with _Memory(self.stack) as memory:
            for _ in range(ROUNDS):
                calls, beside = await self._beside(how, self.length_s, by_s=self.deadline_s)
                rounds.append(calls)
                lookups.append(beside)
                await asyncio.sleep(SETTLE_S)
                capacity.append(await self.capacity())
        return Load(
            name=name, offered=offered, rounds=rounds, lookups=lookups, capacity=capacity, rss_mib=memory.most_mib
        )

    async def _beside(
        self, how: Callable[[Callers], Awaitable[Calls]], length_s: float, *, by_s: float
    ) -> tuple[Calls, Calls]:
        """Return the searches by picture, and those by id beside them."""
        pictures = asyncio.create_task(self.run(self.pictures, how, by_s=by_s))
        lookups = await self._by_id(length_s, by_s=by_s)
        return await pictures, lookups

    async def _by_id(self, length_s: float, *, by_s: float) -> Calls:
        return await self.run(self.lookups, lambda one: one.arriving(LOOKUPS_S, length_s), by_s=by_s)

    async def at_once(self) -> Burst:
        """Search with many large pictures at once."""
        requests = [search_pb2.SearchRequest(image=_large(BURST_BYTES)).SerializeToString()]
        async with _Memory(self.stack) as memory:
            calls = await self.run(requests, lambda callers: callers.together(self.burst), by_s=BURST_DEADLINE_S)
        await asyncio.sleep(SETTLE_S)
        offered = f"{self.burst} searches of {BURST_BYTES / 1e6:.0f} MB, all at once, deadline {BURST_DEADLINE_S:g} s"
        return Burst(offered=offered, calls=calls, rss_mib=memory.most_mib)


class _Memory:
    """Watches the resident memory of the orchestrator."""

    def __init__(self, stack: Stack) -> None:
        self._process = psutil.Process(stack.orchestrator.pid)
        self.most_mib = 0.0

    @property
    def mib(self) -> float:
        """Resident memory now."""
        return float(self._process.memory_info().rss / 2**20)

    async def __aenter__(self) -> _Memory:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            self.most_mib = max(self.most_mib, self.mib)
            await asyncio.sleep(LOOK_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report, which names the aims that were missed.

    Returns 0 if the goodput holds, 1 if not or if it cannot be measured, 130 if it was ended.
    """
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = bench_parser("overload", __doc__)
    parser.add_argument(
        "--length", type=seconds, default=30.0, metavar="S", help="seconds of each load (default %(default)s)"
    )
    parser.add_argument(
        "--deadline", type=seconds, default=3.0, metavar="S", help="of each search in seconds (default %(default)s)"
    )
    parser.add_argument(
        "--burst",
        type=positive,
        default=300,
        metavar="N",
        help="searches with pictures of 19 MB at once; this process takes 40 MB for each (default %(default)s)",
    )
    parser.add_argument(
        "--light",
        action="store_true",
        help="search strips of the photographs by the global descriptor alone, for a machine that is slow or busy",
    )
    return parser.parse_args(argv)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began = time.monotonic()
    with _serving(options, console) as stack:
        with console.status("indexing"):
            pictures, lookups = _indexed(stack, light=options.light)
        bench = _Bench(
            stack=stack,
            pictures=pictures,
            lookups=lookups,
            deadline_s=options.deadline,
            length_s=options.length,
            burst=options.burst,
        )
        sessions = (stack.triton.pid, stack.orchestrator.pid)
        before = cpu_time(sessions)
        report = asyncio.run(_run(bench, options, console, began))
        others = cpu_time(sessions).others_since(before)
    report = OverloadReport(**{**vars(report), "others": others})
    return markdown(report), goodput_holds(report)


async def _run(bench: _Bench, options: argparse.Namespace, console: Console, began: float) -> OverloadReport:
    memory, length_s = _Memory(bench.stack), bench.length_s
    with console.status("warming up"):
        await bench.run(bench.pictures, lambda callers: callers.waiting(2, length_s / 3), by_s=PATIENT_S)
    idle_mib = memory.mib
    with console.status("one caller"):
        unloaded, lookups = await bench.unloaded()
    with console.status("the capacity"):
        capacity, loads = await bench.capacity(), list[Load]()
    for times in (1, TIMES):
        rate = times * capacity
        with console.status(f"{times} times the capacity"):
            arriving = lambda callers, rate=rate: callers.arriving(rate, length_s)  # noqa: E731
            loads.append(await bench.load(f"{times}x", f"{rate:.1f} searches/s", arriving, capacity))
        capacity = loads[-1].capacity[-1]
    with console.status(f"{WAITING} callers"):
        waiting = lambda callers: callers.waiting(WAITING, length_s)  # noqa: E731
        offered = f"{WAITING} callers who wait for each answer"
        loads.append(await bench.load(f"{WAITING} callers", offered, waiting, capacity))
    with console.status("large pictures"):
        burst = await bench.at_once()
    shed = fetch(bench.stack.metrics_address).by("reason", "landseer_shed_total")
    return OverloadReport(
        unloaded=unloaded,
        lookups=lookups,
        capacity_callers=CAPACITY_CALLERS,
        lookups_s=LOOKUPS_S,
        loads=loads,
        burst=burst,
        idle_mib=idle_mib,
        settled_mib=memory.mib,
        shed=shed,
        deadline_s=options.deadline,
        photos=len(bench.pictures),
        light=options.light,
        machine=describe_machine(threads=cores()),
        others=0.0,
        command=repeated("landseer.ops.load.overload", options, "length", "deadline", "burst")
        + (" --light" if options.light else ""),
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )


@contextmanager
def _serving(options: argparse.Namespace, console: Console) -> Iterator[Stack]:
    """Run Triton and the orchestrator on an empty store."""
    with scratch_folder("overload") as folder:
        stack = Stack(StackConfig(repository=options.repository, store=folder / "store"))
        try:
            with console.status("starting Triton and the orchestrator"):
                stack.start()
            yield stack
        finally:
            stack.stop()


def _indexed(stack: Stack, *, light: bool) -> tuple[list[bytes], list[bytes]]:
    """Index photographs; return a search by each of them, and by the id of each, serialised."""
    paths = sorted(make_photos(Path("var/load/photos")).glob("*.jpg"))[:PHOTOS]
    photos = {path.name: _strip(path) if light else path.read_bytes() for path in paths}
    with BlockingSearchClient(stack.search_address) as client:
        client.upsert_many([index_pb2.Picture(id=name, image=data) for name, data in photos.items()])
    stages = LIGHT if light else search_pb2.SearchRequest()
    searches = [search_pb2.SearchRequest(image=data) for data in photos.values()]
    lookups = [search_pb2.SearchRequest(id=name) for name in photos]
    for request in (*searches, *lookups):
        request.MergeFrom(stages)
    return [one.SerializeToString() for one in searches], [one.SerializeToString() for one in lookups]


def _strip(path: Path) -> bytes:
    """Return the upper part of a photograph, five times as wide as high: JPEG."""
    file = io.BytesIO()
    with Image.open(path) as photo:
        photo.crop((0, 0, photo.width, photo.width // 5)).save(file, "JPEG")
    return file.getvalue()


def _large(size: int) -> bytes:
    """Return a picture of at most about `size` bytes: noise, which PNG cannot compress."""
    side = int((size / 3.01) ** 0.5)
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


if __name__ == "__main__":
    run_as_script(main)
