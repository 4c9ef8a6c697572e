"""What backing up, restoring, exporting and importing a store takes, also while it is written to.

    python -m landseer.ops.bench.backup --pictures 20000

The store is generated, with what the default keeps of a picture; the commands are run as an operator runs them, each in
a process of its own, start included. While one runs, this process writes one picture after the other, as a server does,
and compares how long that takes with how long it takes alone. Writes docs/reports/bench-backup.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from landseer.ensemble.cores import cores
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.store.manifest import read_manifest
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ops import machine
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.cpu_time import CpuTime, cpu_time
from landseer.ops.bench.generated_store import limit_bytes, require_room
from landseer.ops.bench.process_memory import own_memory
from landseer.ops.bench.report_parts import machine_table, noise, table
from landseer.ops.errors import OpsError
from landseer.ops.progress import bars

MIB = 2**20
PROFILE = Profile(backbone="generated", weights_sha256="00" * 32, sizes=Sizes(channels=1280))
PICTURE_BYTES = 62_000
"""Of the store for a picture, about."""
THUMBNAIL_BYTES = 8000
KEYPOINTS, PATCHES = 1000, 388
BATCH = 64
CHANGES = (100, 1000)
"""Pictures that are written between two backups, one at a time."""
ALONE_S = 5.0
"""How long to write with nothing beside it, before, between and after the commands."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that was run."""

    seconds: float
    processor: float
    """Seconds of a core."""
    memory: int
    """Bytes of its own at most, without pages of files that it mapped."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A command that was run while pictures were written, one after the other."""

    what: str
    ran: Ran
    writes: list[float]
    """Seconds of each."""
    grown: int
    """Bytes that the store's file grew by."""


def record(number: int, draws: np.random.Generator) -> Record:
    """Return a record of random values, as large as the default's."""
    sizes, half = PROFILE.sizes, np.float16
    frame = {"frame": (640, 480)}
    return Record(
        id=f"generated/{number:08d}",
        metadata={"path": f"generated/{number:08d}.jpg", "file_version": f"{number:064d}"},
        width=640,
        height=480,
        descriptor=draws.standard_normal(sizes.channels, np.float32).astype(half),
        query_vector=draws.standard_normal(sizes.reduced, np.float32).astype(half),
        clusters=draws.standard_normal((sizes.clusters, sizes.reduced), np.float32).astype(half),
        boxes=draws.random((8, 5), np.float32),
        feature_map=draws.integers(0, 256, (sizes.locals, 4), np.uint8),
        model_version="1",
        indexed_at=1.8e9 + number,
        thumbnail=draws.bytes(THUMBNAIL_BYTES),
        keypoints=CompactKeypoints(
            words=draws.integers(0, 2**15, KEYPOINTS),
            codes=draws.integers(0, 256, (KEYPOINTS, 16), np.uint8),
            positions=draws.random((KEYPOINTS, 2), np.float32) * 400,
            sizes=draws.random(KEYPOINTS, np.float32) * 60,
            angles=draws.random(KEYPOINTS, np.float32) * 6,
            **frame,
        ),
        patches=Patches(
            codes=draws.integers(0, 256, (PATCHES, 16), np.uint8),
            positions=draws.random((PATCHES, 2), np.float32) * 400,
            sizes=draws.random(PATCHES, np.float32) * 60,
            **frame,
        ),
    )


class Measurement:
    """Fills a store, and runs commands on it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._pictures = folder, options.pictures
        draws = np.random.default_rng(options.seed)
        self._patterns = [record(number, draws) for number in range(BATCH)]
        self._written = 0
        self.size = 0
        """Of the store's file, bytes."""

    def run(self, console: Console) -> str:
        """Measure all, and return the rows of the report."""
        with self._store() as store, bars(console) as progress:
            task = progress.add_task("writing", total=self._pictures)
            while self._written < self._pictures:
                store.put_many([self._next() for _ in range(min(BATCH, self._pictures - self._written))])
                progress.update(task, completed=self._written)
        self.size = (self._folder / "store" / "data.mdb").stat().st_size
        quiet = [
            self._row("backup, the first", self._command("backup", "store", "backups/first"), self.size),
            self._row("backup, nothing has changed", *self._again("same")),
            *(self._row(f"backup, {count:,} pictures later", *self._changed(count)) for count in CHANGES),
            self._row("backup --verify", self._command("backup", "--verify", "backups/first"), 0),
            self._row("restore", self._command("restore", "backups/first", "restored"), self.size),
            self._row(
                "export-store", self._command("export-store", "store", "store.parquet"), self._length("store.parquet")
            ),
            self._row(
                "import-store",
                self._command("import-store", "store.parquet", "imported"),
                self._length("imported/data.mdb"),
            ),
        ]
        alone, beside = self._beside()
        return "\n".join(
            [
                table(("", "seconds", "of a core", "MiB/s", "bytes written", "MiB of memory"), quiet),
                "",
                f"Pictures written meanwhile, one at a time, each on disk before the next. Alone: {_said(alone)}.",
                "",
                table(
                    ("beside", "seconds", "writes", "median write, ms", "of alone", "p99, ms", "store grew by, MiB"),
                    [_beside_row(one, alone) for one in beside],
                ),
            ]
        )

    def _next(self) -> Record:
        self._written += 1
        return replace(self._patterns[self._written % BATCH], id=f"generated/{self._written:08d}")

    @contextmanager
    def _store(self) -> Iterator[Store]:
        limit = limit_bytes(2 * PICTURE_BYTES * self._pictures)
        store = Store.open(
            self._folder / "store", fingerprint=PROFILE.fingerprint, limit_bytes=limit, codebook="k", patches_sha256="p"
        )
        try:
            yield store
        finally:
            store.close()

    def _command(self, *words: str, meanwhile: Callable[[], None] = lambda: time.sleep(0.02)) -> Ran:
        """Run a command of `landseer` in the folder. OpsError if it fails."""
        began, spent, memory = time.monotonic(), _spent_by_children(), 0
        command = [sys.executable, "-m", "landseer.client.cli", *words]
        with subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None:
                memory = max(memory, own_memory(process.pid))
                meanwhile()
            seconds = time.monotonic() - began
            assert process.stderr is not None
            if process.returncode:
                raise OpsError(f"landseer {' '.join(words)} failed: {process.stderr.read().strip()}")
        return Ran(seconds=seconds, processor=_spent_by_children() - spent, memory=memory)

    def _again(self, name: str) -> tuple[Ran, int]:
        """Back up once more, and return the bytes that are new."""
        ran = self._command("backup", "store", f"backups/{name}")
        there = self._folder / "backups" / name
        new = [path for path in (there / "packs").iterdir() if path.stat().st_nlink == 1]
        return ran, sum(path.stat().st_size for path in (*new, there / "blocks", there / "manifest.json"))

    def _changed(self, count: int) -> tuple[Ran, int]:
        with self._store() as store:
            for _ in range(count):
                store.put_many([self._next()])
        return self._again(f"after-{count}")

    def _beside(self) -> tuple[list[float], list[Beside]]:
        with self._store() as store:
            alone, beside = self._alone(store), []
            for what, words in (
                ("backup --whole", ("backup", "--whole", "store", "backups/beside")),
                ("export-store", ("export-store", "store", "beside.parquet")),
            ):
                before, writes = store.stats().file_bytes, list[float]()
                ran = self._command(*words, meanwhile=partial(self._timed, store, writes))
                beside.append(Beside(what=what, ran=ran, writes=writes, grown=store.stats().file_bytes - before))
                alone += self._alone(store)
        self._check_all()
        return alone, beside

    def _alone(self, store: Store) -> list[float]:
        writes, until = list[float](), time.monotonic() + ALONE_S
        while time.monotonic() < until:
            self._timed(store, writes)
        return writes

    def _timed(self, store: Store, writes: list[float]) -> None:
        writes.append(self._write(store))

    def _write(self, store: Store) -> float:
        one = self._next()
        began = time.perf_counter()
        store.put_many([one])
        return time.perf_counter() - began

    def _check_all(self) -> None:
        """OpsError unless the backup that was made beside writes is sound."""
        self._command("backup", "--verify", "backups/beside")
        self._command("restore", "backups/beside", "restored-beside")
        made = read_manifest(self._folder / "backups" / "beside")
        if made.pictures != made.sequence:
            raise OpsError(f"the backup has {made.pictures} pictures after {made.sequence} changes that each wrote one")

    def _length(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    def _row(self, what: str, ran: Ran, written: int) -> tuple[str, ...]:
        rate = self.size / MIB / ran.seconds
        return (
            what,
            f"{ran.seconds:.1f}",
            f"{ran.processor:.1f}",
            f"{rate:,.0f}",
            f"{written:,}",
            f"{ran.memory / MIB:,.0f}",
        )


def _processors() -> CpuTime:
    """Return the time of all cores, and that of this process and the commands that it ran."""
    return replace(cpu_time(()), ours=sum(os.times()[:4]))


def _spent_by_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _said(writes: list[float]) -> str:
    return f"{statistics.median(writes) * 1000:.1f} ms at the median, p99 {_p99(writes):.1f} ms, {len(writes):,} writes"


def _p99(writes: list[float]) -> float:
    return float(np.percentile(writes, 99)) * 1000


def _beside_row(one: Beside, alone: list[float]) -> tuple[str, ...]:
    median = statistics.median(one.writes)
    ratio = median / statistics.median(alone)
    figures = (f"{len(one.writes):,}", f"{median * 1000:.1f}", f"{ratio:.2f}", f"{_p99(one.writes):.1f}")
    return one.what, f"{one.ran.seconds:.1f}", *figures, f"{one.grown / MIB:.1f}"


def main() -> int:
    """Measure and write the report."""
    parser = bench_parser("bench-backup", __doc__)
    parser.add_argument("--pictures", type=int, default=20_000, metavar="N", help="default %(default)s")
    parser.add_argument("--scratch", type=Path, default=Path("var"), metavar="DIR", help="default %(default)s")
    options, console = parser.parse_args(), Console()

    def measure() -> tuple[str, bool]:
        options.scratch.mkdir(parents=True, exist_ok=True)
        require_room(options.scratch, 6 * PICTURE_BYTES * options.pictures)
        with tempfile.TemporaryDirectory(prefix="bench-backup-", dir=options.scratch) as folder:
            measured, before = Measurement(Path(folder), options), _processors()
            rows = measured.run(console)
            others = _processors().others_since(before)
        return report(rows, measured, others, options), True

    return write_report(measure, options.out, console)


def report(rows: str, measured: Measurement, others: float, options: argparse.Namespace) -> str:
    """Return the report. others: share of all cores that other programs used."""
    lines = [
        "# Backing up",
        "",
        f"A generated store of {options.pictures:,} pictures with what the default keeps of each, {measured.size:,} "
        "bytes. Seconds are of the whole command, with its start; source and target are on one disk; what was "
        "just written was in memory. Rates are of the store's bytes. Memory is the process's own, without "
        "mapped pages of files. [How to back up](../operate.md#back-up-and-restore)." + noise(others),
        "",
        rows,
        "",
        machine_table(machine.describe(threads=cores()), others),
        "",
        f"Again: `{repeated('landseer.ops.bench.backup', options, 'pictures', 'seed')}`",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_as_script(main)
