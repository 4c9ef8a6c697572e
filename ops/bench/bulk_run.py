"""One run of `landseer bulk` into a new store, and what each kind of process spent while it described."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.codebooks import codebooks_of
from landseer.ensemble.index.configured_store import open_store
from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.cpu_time import CpuTime, cpu_time
from landseer.ops.bench.process_memory import own_memory
from landseer.ops.bulk.describer import DescribingOrder
from landseer.ops.bulk.filling import Filling
from landseer.ops.bulk.ray_workers import cluster, outcomes
from landseer.ops.bulk.sources import BulkPicture
from landseer.ops.errors import OpsError

WORKERS, DECODERS, WRITER, SERVERS = "workers", "decoders", "writer", "Ray's servers"
"""Kinds of processes; the writer also leads the run."""


@dataclass(frozen=True, kw_only=True)
class BulkRun:
    """A run. The start, until each worker had described its first pictures, is apart."""

    start_s: float
    start_processor: float
    """Seconds of a core."""
    pictures: int
    """Described after the start."""
    seconds: float
    """That they took."""
    spent: dict[str, float]
    """Seconds of a core by kind of process, meanwhile."""
    others: float
    """Share of all cores that other programs used, meanwhile."""
    memory: int
    """Bytes of its own that a worker had at most, without those of its decoder."""

    @property
    def rate(self) -> float:
        """Pictures a second, after the start."""
        return self.pictures / self.seconds

    @property
    def busy(self) -> float:
        """Cores that the run used, after the start."""
        return sum(self.spent.values()) / self.seconds

    @property
    def whole(self) -> float:
        """Seconds of a core a picture that all its processes spent, after the start."""
        return sum(self.spent.values()) / self.pictures

    def processor(self, kind: str) -> float:
        """Return the seconds of a core a picture that processes of a kind spent."""
        return self.spent[kind] / self.pictures


@dataclass(frozen=True, kw_only=True)
class _Moment:
    machine: CpuTime
    settled: int
    spent: dict[str, float]
    memory: int


def bulk_run(
    pictures: Sequence[BulkPicture], config: ServerConfig, profile: Profile, repository: Path, *, threads: int = 1
) -> BulkRun:
    """Describe pictures on all cores into `config.store`, which must not exist. OpsError, also if a picture fails.

    In a process of its own, as the command is: Ray remembers the last cluster of a process in the next one.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_run, pictures, config, profile, repository, threads).result()


def _run(
    pictures: Sequence[BulkPicture], config: ServerConfig, profile: Profile, repository: Path, threads: int
) -> BulkRun:
    codebook = codebooks_of(config).keypoints
    order = DescribingOrder(
        repository=repository.absolute(),
        profile=profile,
        config=config,
        codebook=codebook.fingerprint if codebook else "",
        threads=threads,
    )
    store = open_store(config, profile, codebooks_of(config))
    try:
        filling, meter = Filling(store, pictures, lambda _: {}), _Meter()
        begin = first = last = meter.read(filling)
        with cluster(None, workers=None, threads=threads) as workers:
            for number, part in enumerate(outcomes(filling.waiting, order, workers=workers), 1):
                filling.write(part)
                last = meter.read(filling)
                # Workers end parts side by side, so that one for each of them belongs to the start.
                first = last if number == workers else first
        if filling.tally.failures:
            raise OpsError(f"a picture was not indexed: {filling.tally.failures[0].why}")
    finally:
        store.close()
    if first.settled in (0, last.settled):
        raise OpsError(f"got {len(pictures)} pictures, too few to measure; name folders with more")
    return _between(begin, first, last)


def _between(begin: _Moment, first: _Moment, last: _Moment) -> BulkRun:
    return BulkRun(
        start_s=first.machine.when - begin.machine.when,
        start_processor=sum(first.spent.values()) - sum(begin.spent.values()),
        pictures=last.settled - first.settled,
        seconds=last.machine.when - first.machine.when,
        spent={kind: last.spent[kind] - first.spent[kind] for kind in first.spent},
        others=last.machine.others_since(first.machine),
        memory=last.memory,
    )


class _Meter:
    """Reads the processor time of this process and of those that it started, also of those that have ended since."""

    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}
        self._spent: dict[int, float] = {}
        self._memory = 0

    def read(self, filling: Filling) -> _Moment:
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
                # Ray renames its processes when they begin with something.
                self._kinds[process.pid] = _kind(process.cmdline())
                if self._kinds[process.pid] == WORKERS:
                    self._memory = max(self._memory, own_memory(process.pid))
            except psutil.NoSuchProcess:
                continue
            self._spent[process.pid] = times.user + times.system
        spent = dict.fromkeys((WORKERS, DECODERS, WRITER, SERVERS), 0.0)
        spent[WRITER] = sum(os.times()[:2])
        for pid, seconds in self._spent.items():
            spent[self._kinds[pid]] += seconds
        machine = replace(cpu_time(()), ours=sum(spent.values()))
        return _Moment(machine=machine, settled=filling.settled, spent=spent, memory=self._memory)


def _kind(command: Sequence[str]) -> str:
    """Return the kind of a process. Ray names its own by what they do."""
    words = " ".join(command)
    if words.startswith("ray::MapWorker"):
        return WORKERS
    return DECODERS if "landseer.ensemble.pictures.nursery" in words else SERVERS
