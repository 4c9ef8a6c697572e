"""`make bench-reranking`: what co-attention adds to a search of a million entries, asked with and without in turn."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

import numpy as np
import tritonclient.grpc as tritonclient
from rich.console import Console
from rich.markdown import Markdown

from landseer.client.blocking import BlockingSearchClient
from landseer.client.errors import LandseerClientError
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.folder import DATA
from landseer.ensemble.store.record import Record
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import cores, read_profile
from landseer.ops.bench.asking import Asker, Pair
from landseer.ops.bench.cpu_time import cpu_time
from landseer.ops.bench.generated_store import Written, expected_bytes, limit_bytes, require_room, write
from landseer.ops.bench.generator import Fit, entries, entry_id, fit
from landseer.ops.bench.likeness import likeness
from landseer.ops.bench.page_cache import drop, evict, memory_bytes, read_ahead
from landseer.ops.bench.real_store import PhotographSource, real_records
from landseer.ops.bench.rerank_parts import look
from landseer.ops.bench.reranking_report import AskedPairs, RerankingReport, Started, markdown, verdict
from landseer.ops.curate.showing import bars
from landseer.ops.errors import OpsError
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.triton import TritonConfig, TritonServer

START_S = 3600.0
"""Longest wait for the index to be built."""
ANSWER_S = 120.0
"""Deadline of a search: one that reads from a slow disk is measured, too."""
LEAST_ENTRIES = 200
"""Candidates are 100, and a query is none of its own."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """An orchestrator over the generated store, ready."""

    asker: Asker
    pid: int
    sessions: tuple[int, int]
    """Of Triton and the orchestrator."""
    metrics: str
    triton: tritonclient.InferenceServerClient
    data: Path
    """The store's file."""
    started: Started


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. 0 if re-ranking adds no more than it may, 1 if more or if it cannot be measured."""
    options, console = _options(argv), Console()
    try:
        report = _measure(options, console)
        text = markdown(report)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    except (OpsError, LandseerError, LandseerClientError, ValueError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.strerror or error} ({error.filename or options.scratch})")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    console.print(Markdown(text))
    console.print(f"Written to {options.out}.")
    return 0 if verdict(report) else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-reranking", description=__doc__)
    add = parser.add_argument
    add("--photographs", required=True, metavar="SPEC", help="real pictures that the entries shall be like")
    add("--like", type=positive, default=400, metavar="N", help="most of them, spread evenly (default %(default)s)")
    add("--entries", type=positive, default=1_000_000, metavar="N", help="default %(default)s")
    add("--queries", type=positive, default=100, metavar="N", help="of each kind (default %(default)s)")
    add("--rounds", type=positive, default=3, metavar="N", help="over warm queries (default %(default)s)")
    add("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    add("--scratch", type=Path, default=Path("var/bench"), metavar="DIR", help="where the store is written and removed")
    add("--out", type=Path, default=Path("docs/reports/bench-reranking.md"), metavar="FILE")
    add("--seed", type=int, default=0, metavar="N", help="of entries, queries and the bootstrap (default %(default)s)")
    options = parser.parse_args(argv)
    least = max(LEAST_ENTRIES, 3 * options.queries)
    if options.entries < least:
        parser.error(
            f"--entries {options.entries} is too few for --queries {options.queries}; expected {least} or more"
        )
    return options


def _measure(options: argparse.Namespace, console: Console) -> RerankingReport:
    began, profile = time.monotonic(), read_profile(options.repository)
    options.scratch.mkdir(parents=True, exist_ok=True)
    real = real_records(_source(options, profile), console)
    fitted = fit(real)
    needed = expected_bytes(fitted.patterns, options.entries)
    require_room(options.scratch, needed)
    with tempfile.TemporaryDirectory(prefix="reranking-", dir=options.scratch) as folder:
        written = _write(Path(folder), fitted, profile, options, console)
        with _serving(Path(folder), options, limit=limit_bytes(needed), console=console) as serving:
            before = cpu_time(serving.sessions)
            rows = _rows(serving, options, console)
            others = cpu_time(serving.sessions).others_since(before)
    return RerankingReport(
        rows=rows,
        likeness=likeness(real, _sample(fitted, len(real), options.seed)),
        written=written,
        started=serving.started,
        machine=[*describe_machine(threads=cores()), ("read-ahead of the disk", read_ahead(options.scratch))],
        others=others,
        profile=profile,
        photographs=f"{len(real)} of `{options.photographs}`",
        seed=options.seed,
        command=_command(options),
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )


def _source(options: argparse.Namespace, profile: Profile) -> PhotographSource:
    return PhotographSource(
        repository=options.repository,
        profile=profile,
        photographs=options.photographs,
        limit=options.like,
        home=options.scratch,
    )


def _sample(fitted: Fit, count: int, seed: int) -> list[Record]:
    """Return the first entries of the store, whole things."""
    return list(chain.from_iterable(entries(fitted, count, seed=seed)))


def _write(folder: Path, fitted: Fit, profile: Profile, options: argparse.Namespace, console: Console) -> Written:
    with bars(console) as progress:
        task = progress.add_task("writing entries", total=options.entries)
        return write(
            folder,
            fitted,
            profile=profile,
            count=options.entries,
            seed=options.seed,
            progress=lambda count: progress.advance(task, count),
        )


@contextmanager
def _serving(folder: Path, options: argparse.Namespace, *, limit: int, console: Console) -> Iterator[Serving]:
    """Run Triton and an orchestrator over the store, whose file is first taken out of the page cache."""
    with ExitStack() as ending:
        triton = TritonServer(TritonConfig(repository=options.repository))
        ending.callback(triton.stop)
        with console.status("starting Triton"):
            triton.start()
            triton.wait_ready(ANSWER_S)
        listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
        server = Orchestrator(
            OrchestratorConfig(
                listen=listen,
                triton=triton.grpc_url,
                store=folder,
                metrics=metrics,
                extra_args=("--store-limit", str(limit)),
            )
        )
        ending.callback(server.stop)
        with console.status("the orchestrator builds its index from the store"):
            started = _start(server, folder / DATA)
        client = BlockingSearchClient(listen, timeout=ANSWER_S)
        ending.callback(client.close)
        statistics = tritonclient.InferenceServerClient(triton.grpc_url)
        ending.callback(statistics.close)
        yield Serving(
            asker=Asker(client, pid=server.pid),
            pid=server.pid,
            sessions=(triton.pid, server.pid),
            metrics=f"http://{metrics}/metrics",
            triton=statistics,
            data=folder / DATA,
            started=started,
        )


def _start(server: Orchestrator, data: Path) -> Started:
    drop(data)
    began = time.monotonic()
    server.start()
    server.wait_ready(START_S)
    seconds = time.monotonic() - began
    own, most = (memory_bytes(server.pid, name) for name in ("RssAnon", "VmHWM"))
    return Started(seconds=seconds, own=own, most=most)


def _rows(serving: Serving, options: argparse.Namespace, console: Console) -> AskedPairs:
    """Ask everything: warm queries, fresh ones, and with nothing of the store in memory."""
    chosen = np.random.default_rng(options.seed).choice(options.entries, 3 * options.queries, replace=False)
    warm, fresh, cold = ([entry_id(number) for number in some] for some in np.split(chosen, 3))
    asker = serving.asker
    with console.status("warming up"):
        asker.pairs(warm, alternate=True)
    with console.status("asking warm queries"):
        before, asked = look(serving.metrics, serving.triton), list[Pair]()
        for _ in range(options.rounds):
            asked += asker.pairs(warm, alternate=True)
        parts = look(serving.metrics, serving.triton).rows_since(before)
    with console.status("asking queries that are new"):
        new = asker.pairs(fresh, alternate=False)
    with console.status("asking with nothing in memory"):
        nothing, why = _cold(serving, cold)
    return AskedPairs(warm=asked, fresh=new, cold=nothing, why_not_cold=why, parts=parts)


def _cold(serving: Serving, ids: Sequence[str]) -> tuple[list[Pair], str]:
    """Ask with the store taken out of memory before each search; nothing, and why, where that is not permitted."""
    try:
        return serving.asker.pairs(ids, alternate=False, before=lambda: evict(serving.pid, serving.data)), ""
    except OSError as error:
        return [], error.strerror or str(error)


def _command(options: argparse.Namespace) -> str:
    names = ("photographs", "like", "entries", "queries", "rounds", "seed")
    flags = " ".join(f"--{name} {getattr(options, name)}" for name in names)
    return f"python -m landseer.ops.bench.reranking {flags}"


def _failed(reason: str) -> int:
    print(f"landseer: error: {' '.join(reason.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    # Told to end, it ends what it started and removes its store, as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
