"""`make bench-index`: what each index finds and takes among generated vectors, beside exact search."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from shlex import quote

from rich.console import Console

from landseer.ensemble.cores import cores
from landseer.ensemble.errors import IndexUnavailable
from landseer.ensemble.index.faiss_factory import least_vectors, made
from landseer.ensemble.index.milvus_setting import DEFAULT as MILVUS
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.cpu_time import cpu_time
from landseer.ops.bench.generated_store import expected_bytes, limit_bytes, only_described, require_room, write
from landseer.ops.bench.generator import EntryDistribution, entries, fit
from landseer.ops.bench.index_report import FILTERED, EngineRow, IndexReport, SizeRows, markdown, verdict
from landseer.ops.bench.index_trial import BuiltIndex, IndexTrial, Questions, fastest, folder_of, suiting
from landseer.ops.bench.likeness import Likeness, likeness
from landseer.ops.bench.milvus_index import milvus_built
from landseer.ops.bench.neighbourhood import neighbourhoods
from landseer.ops.bench.real_store import PhotographSource, real_records, stored_records
from landseer.ops.machine import describe as describe_machine
from landseer.ops.progress import bars
from landseer.ops.run.milvus import VERSION

SIZES = (10_000, 100_000)
REPEATED = ("like", "queries", "target", "seed")
"""The options that decide the result, beside the real pictures and the sizes."""
K = 10
FLOAT = 4
"""Bytes of a vector's value in the largest index of FAISS: all vectors, in fp32."""
MILVUS_COPIES = 3
"""Milvus' folder in times of that, at most: it keeps what it was sent beside its index, and merges parts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. Returns 0 if an index meets the target at each size, else 1."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = bench_parser("bench-index", __doc__)
    parser.set_defaults(out=Path("docs/reports/index.md"))
    add = parser.add_argument
    real = parser.add_mutually_exclusive_group(required=True)
    real.add_argument("--photographs", metavar="SPEC", help="real pictures that the generated entries imitate")
    real.add_argument("--like-store", type=Path, metavar="DIR", help="a store that has them indexed already")
    like = "maximum number of real pictures, spread evenly over them (default %(default)s)"
    add("--like", type=positive, default=400, metavar="N", help=like)
    sizes = "numbers of entries, each measured (default 10000 100000; 1000000 takes 13 GB of disk, 23 with --milvus)"
    add("--entries", type=positive, nargs="+", default=list(SIZES), metavar="N", help=sizes)
    add("--index", action="append", metavar="FACTORY", help="an index to measure (default: several that suit the size)")
    beside = (
        f"measure Milvus {VERSION} on the same vectors, too (default index HNSW32); installed in var/ the first time"
    )
    add("--milvus", nargs="*", metavar="INDEX", help=beside)
    most = "largest number of entries that Milvus is measured at, as it takes long to index them (default: all)"
    add("--milvus-most", type=positive, metavar="N", help=most)
    add("--threads", type=positive, metavar="N", help="threads of FAISS (default: all cores)")
    add("--queries", type=positive, default=300, metavar="N", help="held-out queries (default %(default)s)")
    add("--target", type=float, default=0.98, metavar="RECALL", help="recall to reach (default %(default)s)")
    add("--scratch", type=Path, default=Path("var/bench"), metavar="DIR", help="folder for stores and indexes")
    return parser.parse_args(argv)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, before, profile = time.monotonic(), cpu_time(()), read_profile(options.repository)
    options.scratch.mkdir(parents=True, exist_ok=True)
    real = _real(options, profile, console)
    fitted = fit(real)
    require_room(options.scratch, _room(fitted, max(options.entries), milvus=options.milvus is not None))
    sizes = [_sized(count, fitted, profile, options, console) for count in sorted(options.entries)]
    sample = list(chain.from_iterable(entries(fitted, len(real), seed=options.seed)))
    report = IndexReport(
        sizes=sizes,
        target=options.target,
        queries=options.queries,
        neighbourhoods=[*neighbourhoods(real, sample), *_descriptor_likeness(real, sample)],
        machine=describe_machine(threads=cores()),
        others=cpu_time(()).others_since(before),
        profile=profile,
        photographs=f"{len(real)} of `{options.like_store or options.photographs}`",
        command=_command(options),
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
        milvus="" if options.milvus is None else VERSION,
    )
    return markdown(report), verdict(report)


def _room(fitted: EntryDistribution, count: int, *, milvus: bool) -> int:
    """Return the bytes of a store of so many entries and of the largest index of it."""
    vectors = FLOAT * fitted.size * count
    return expected_bytes(only_described(fitted.patterns), count) + vectors * (MILVUS_COPIES if milvus else 1)


def _descriptor_likeness(real: Sequence[Record], sample: Sequence[Record]) -> list[Likeness]:
    return [one for one in likeness(real, sample) if one.name.startswith("descriptor")]


def _real(options: argparse.Namespace, profile: Profile, console: Console) -> list[Record]:
    """Return the records of real pictures: of a store, or of photographs, which are indexed first. OpsError."""
    if options.like_store is not None:
        return stored_records(options.like_store, profile, limit=options.like)
    source = PhotographSource(
        repository=options.repository,
        profile=profile,
        photographs=options.photographs,
        limit=options.like,
        home=options.scratch,
    )
    return real_records(source, console)


def _command(options: argparse.Namespace) -> str:
    real = "like-store" if options.like_store is not None else "photographs"
    told = f"--{real} {getattr(options, real.replace('-', '_'))} --entries {' '.join(map(str, options.entries))}"
    told += "".join(f" --index {quote(factory)}" for factory in options.index or ())
    told += "" if options.milvus is None else " ".join([" --milvus", *options.milvus])
    told += f" --milvus-most {options.milvus_most}" if options.milvus_most else ""
    return f"{repeated('landseer.ops.bench.index_bench', options, *REPEATED)} {told}"


@contextmanager
def _advanced(what: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs; it calls what it gets with the number of further entries."""
    with bars(console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _sized(
    count: int, fitted: EntryDistribution, profile: Profile, options: argparse.Namespace, console: Console
) -> SizeRows:
    """Generate a store of `count` entries, and measure each index that suits it."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=options.scratch) as home:
        folder = Path(home) / "store"
        with _advanced(f"writing {count:,} entries", count, console) as advance:
            written = write(
                folder, fitted, profile=profile, count=count, seed=options.seed, progress=advance, described=True
            )
        shape, limit = (profile.sizes.clusters, profile.sizes.reduced), limit_bytes(written.bytes)
        store = Store.open(folder, fingerprint=profile.fingerprint, clusters_shape=shape, limit_bytes=limit)
        try:
            left_out: list[str] = []
            engines = list(_engines(store, Path(home), options, console, left_out))
            return SizeRows(entries=count, engines=engines, left_out=left_out)
        finally:
            store.close()


def _engines(
    store: Store, home: Path, options: argparse.Namespace, console: Console, left_out: list[str]
) -> Iterator[EngineRow]:
    """Yield the rows. left_out: gets why Milvus could not be measured."""
    with console.status("searching exactly for the truth"):
        trial = IndexTrial(store, queries=options.queries, k=K, seed=options.seed, threads=options.threads or 0)
        asked, filtered = trial.questions(), trial.questions(FILTERED)
    for factory in _fitting(options.index or suiting(len(trial.keys), trial.dimension), trial):
        with _folder(home, factory) as folder:
            with console.status(f"building {factory}"):
                built = trial.build(factory, folder)
            with console.status(f"searching {factory}"):
                row = _row(trial, built, asked, filtered, target=options.target)
            del built
        yield row
    for factory in _of_milvus(len(trial.keys), options):
        status = console.status(f"building Milvus' {factory}")
        try:
            with _folder(home, f"milvus-{factory}") as folder, status, milvus_built(trial, factory, folder) as built:
                status.update(f"searching Milvus' {factory}")
                row = _row(trial, built, asked, filtered, target=options.target, enough=options.target)
            yield row
        except IndexUnavailable as error:
            left_out.append(f"Milvus' `{factory}`: {error}")
            console.print(left_out[-1], highlight=False)


@contextmanager
def _folder(home: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder for an index, and remove it, as those of a million vectors together may fill a disk."""
    folder = folder_of(home, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _of_milvus(size: int, options: argparse.Namespace) -> list[str]:
    """Return the indexes of Milvus to measure among so many vectors."""
    if options.milvus is None or size > (options.milvus_most or size):
        return []
    return options.milvus or [MILVUS]


def _row(
    trial: IndexTrial,
    built: BuiltIndex,
    asked: Questions,
    filtered: Questions,
    *,
    target: float,
    enough: float | None = None,
) -> EngineRow:
    """Measure an index. enough: as of `IndexTrial.sweep`; Milvus takes minutes for each effort among a million."""
    points = list(trial.sweep(built, asked, enough=enough))
    found = fastest(points, target=target) or max(points, key=lambda point: point.recall)
    narrowed = built.index.searched_with(effort=found.setting.effort, rescored=found.setting.rescored)
    return EngineRow(
        cost=built.cost, points=points, chosen=found, filtered=trial.point(narrowed, filtered, built.clock)
    )


def _fitting(factories: Sequence[str], trial: IndexTrial) -> list[str]:
    """Return those that so many vectors can train. ValueError for one that FAISS cannot make."""
    return [some for some in factories if least_vectors(made(some, trial.dimension)) <= len(trial.keys)]


if __name__ == "__main__":
    run_as_script(main)
