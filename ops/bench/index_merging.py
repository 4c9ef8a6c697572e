"""`python -m landseer.ops.bench.index_merging STORE`: searches while a new version of the index is built, and starts.

STORE is a copy that may be changed, such as one of `make bench-index`: pictures are added to it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.merging import Merger
from landseer.ensemble.index.writer import Writer
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.page_cache import memory_bytes
from landseer.ops.machine import describe as describe_machine

K = 10
PAUSE_S, WRITE_S = 0.002, 0.25
"""Seconds between two searches of the one caller, and between two writes."""
WRITTEN = 4
"""Pictures of a write."""
SAMPLE = 1000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Searches of a time."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """That each search took."""
    own_bytes: int
    """RssAnon at the end."""

    def __str__(self) -> str:
        times = 1e3 * np.array(self.seconds)
        p50, p99 = np.quantile(times, [0.5, 0.99])
        return (
            f"| {self.name} | {len(times):,} | {p50:.2f} | {p99:.2f} | {times.max():.2f} "
            f"| {self.own_bytes / 2**20:,.0f} |"
        )


class Busy:
    """A collection that is searched by one caller and written to all the time."""

    def __init__(self, collection: Collection, records: Sequence[Record]) -> None:
        self._collection, self._records = collection, records
        self._queries = [record.descriptor.astype(np.float32) for record in records]
        self._done = 0
        self.failed = 0

    async def searched(self, name: str, until: Callable[[], bool]) -> Phase:
        """Search until that is so."""
        times: list[float] = []
        while not until() or not times:
            times.append(await self._one(self._queries[self._done % len(self._queries)]))
            self._done += 1
            await asyncio.sleep(PAUSE_S)
        return Phase(name=name, seconds=times, own_bytes=memory_bytes(os.getpid(), "RssAnon"))

    async def written(self, writer: Writer, run: str) -> None:
        """Add pictures until cancelled."""
        count = 0
        while True:
            some = [self._records[(count + place) % len(self._records)] for place in range(WRITTEN)]
            names = (f"merging/{run}/{count + place}" for place in range(WRITTEN))
            await writer.put([dataclasses.replace(one, id=name) for one, name in zip(some, names, strict=True)])
            count += WRITTEN
            await asyncio.sleep(WRITE_S)

    async def _one(self, query: npt.NDArray[np.float32]) -> float:
        began = time.perf_counter()
        try:
            await self._collection.search(query, K)
        except LandseerError:
            self.failed += 1
        return time.perf_counter() - began


async def measure(config: ServerConfig, profile: Profile, *, seconds: float) -> list[str]:
    """Start, search, merge while searching, and start again. Returns lines of Markdown."""
    before, first = await _started(config, profile)
    busy = Busy(before, _records(before))
    writer = Writer(before)
    writes = asyncio.create_task(busy.written(writer, f"{time.time():.0f}"))
    quiet = await busy.searched("quiet", _after(seconds))
    present = before.index.main
    merger = Merger(before)
    during = await busy.searched("while a version is built", lambda: before.index.main is not present)
    after = await busy.searched("after it took over", _after(seconds))
    writes.cancel()
    await asyncio.gather(writes, return_exceptions=True)
    await writer.close()
    await merger.close()
    await asyncio.to_thread(before.close)
    again, second = await _started(config, profile)
    await asyncio.to_thread(again.close)
    ratio = np.quantile(during.seconds, 0.99) / np.quantile(quiet.seconds, 0.99)
    return [
        first,
        "",
        "| | searches | p50, ms | p99, ms | most, ms | RssAnon, MiB |",
        "|---|---:|---:|---:|---:|---:|",
        *map(str, (quiet, during, after)),
        "",
        f"p99 while a version is built: {ratio:.2f} times that of quiet; {busy.failed} searches failed.",
        second,
    ]


async def _started(config: ServerConfig, profile: Profile) -> tuple[Collection, str]:
    began = time.perf_counter()
    opened = await Collection.open(config, profile, Metrics())
    await opened.load()
    seconds, main = time.perf_counter() - began, opened.index.main
    how = "without a version" if main is None else f"with version {main.number} ({main.setting.factory})"
    own = memory_bytes(os.getpid(), "RssAnon") / 2**20
    return opened, f"Start {how}: {seconds:.2f} s for {opened.size:,} pictures; RssAnon {own:,.0f} MiB."


def _records(collection: Collection) -> list[Record]:
    """Return a sample of what is stored."""
    keys = np.sort(collection.store.metadata.ids()[0])
    some = keys[:: max(1, len(keys) // SAMPLE)].tolist()
    return [found.record for found in collection.store.by_keys(some) if found is not None]


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(prog="index_merging", description=__doc__)
    add = parser.add_argument
    add("store", type=Path, metavar="STORE", help="folder of a store that may be changed")
    add("--models", type=Path, default=Path("model_repository"), metavar="DIR", help="models that filled it")
    add("--index", default="", metavar="FACTORY[:EFFORT[:RESCORED]]", help="as of `landseer serve`")
    add("--seconds", type=positive, default=60, metavar="N", help="of the quiet times (default %(default)s)")
    args = parser.parse_args(argv)
    # A share so small that a version is due at once.
    config = ServerConfig(store=args.store, store_limit_bytes=2**36, local_features=NONE, index=args.index)
    config = dataclasses.replace(config, merge_share=1e-9)
    lines = asyncio.run(measure(config, read_profile(args.models), seconds=args.seconds))
    machine = [f"{name}: {value}" for name, value in describe_machine(threads=config.threads)]
    print("\n".join([*machine, "", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
