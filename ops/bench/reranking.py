"""`make bench-reranking`: measure whole searches by id among a million entries, and what co-attention adds to one."""

from __future__ import annotations

import argparse
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

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.cores import cores
from landseer.ensemble.index.versions import WORDS, Versions
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.folder import DATA
from landseer.ensemble.store.record import Record
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.asking import AnswerPair, IdAsker
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.cpu_time import cpu_time
from landseer.ops.bench.generated_features import FeaturePool
from landseer.ops.bench.generator import EntryDistribution, entries, entry_id, fit
from landseer.ops.bench.likeness import likeness
from landseer.ops.bench.page_cache import drop, evict, memory_bytes, read_ahead
from landseer.ops.bench.prepared_store import STORE, StorePlan, home_of, prepared
from landseer.ops.bench.real_store import PhotographSource, real_features, real_records
from landseer.ops.bench.rerank_parts import look
from landseer.ops.bench.reranking_report import AskedPairs, RerankingReport, Started, markdown, verdict
from landseer.ops.bench.whole_search import WayTimes, WholeSearches
from landseer.ops.errors import OpsError
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.triton import TritonConfig, TritonServer

START_S = 3600.0
"""Maximum time of a start, and of checking files after it."""
LOOK_S = 0.5
"""Seconds from one look whether they are checked to the next."""
ANSWER_S = 120.0
"""Deadline of a search, long enough to measure one that reads from a slow disk."""
LEAST_ENTRIES = 200
"""A search has 100 candidates, and a query is not its own candidate."""
REPEATED = ("photographs", "like", "entries", "queries", "rounds", "seed")
"""The options that decide the result."""


@dataclass(frozen=True, kw_only=True)
class GeneratedServing:
    """An orchestrator over the generated store, ready."""

    client: BlockingSearchClient
    asker: IdAsker
    pid: int
    sessions: tuple[int, int]
    """Sessions of Triton and the orchestrator."""
    metrics: str
    triton: tritonclient.InferenceServerClient
    data: Path
    """The store's data file."""
    started: Started


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. Returns 0 if re-ranking meets its limit, 1 if not or if it cannot be measured."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = bench_parser("bench-reranking", __doc__)
    add = parser.add_argument
    add("--photographs", required=True, metavar="SPEC", help="real pictures that the generated entries imitate")
    add(
        "--like",
        type=positive,
        default=400,
        metavar="N",
        help="maximum number of real pictures, spread evenly over them (default %(default)s)",
    )
    add("--entries", type=positive, default=1_000_000, metavar="N", help="entries to generate (default %(default)s)")
    add("--queries", type=positive, default=100, metavar="N", help="queries of each kind (default %(default)s)")
    add("--rounds", type=positive, default=3, metavar="N", help="rounds over the warm queries (default %(default)s)")
    add("--scratch", type=Path, default=Path("var/bench"), metavar="DIR", help="folder for the store")
    add("--keep", action="store_true", help="keep the store there, and use the one that an equal run has kept")
    options = parser.parse_args(argv)
    least = max(LEAST_ENTRIES, 3 * options.queries)
    if options.entries < least:
        parser.error(
            f"--entries {options.entries} is too few for --queries {options.queries}; expected {least} or more"
        )
    return options


@dataclass(frozen=True, kw_only=True)
class QueryIds:
    """Ids of random entries."""

    warm: list[str]
    """Asked for again and again."""
    fresh: list[str]
    cold: list[str]


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, profile = time.monotonic(), read_profile(options.repository)
    options.scratch.mkdir(parents=True, exist_ok=True)
    source, ids = _source(options, profile), _query_ids(options)
    real = real_records(source, console)
    plan = StorePlan(
        fitted=fit(real),
        pool=FeaturePool.of(real_features(source)),
        profile=profile,
        entries=options.entries,
        asked=ids.warm,
        seed=options.seed,
    )
    with home_of(plan, source.store.name, options.scratch, keep=options.keep) as home:
        written = prepared(home, plan, console)
        with _serving(home / STORE, options, limit=plan.limit, console=console) as serving:
            before = cpu_time(serving.sessions)
            rows = _rows(serving, ids, options, console)
            ways = _ways(serving, ids, options, console)
            own = memory_bytes(serving.pid, "RssAnon")
            others = cpu_time(serving.sessions).others_since(before)
    report = RerankingReport(
        rows=rows,
        ways=ways,
        likeness=likeness(real, _sample(plan.fitted, len(real), options.seed)),
        written=written,
        started=serving.started,
        own=own,
        machine=[*describe_machine(threads=cores()), ("read-ahead of the disk", read_ahead(options.scratch))],
        others=others,
        profile=profile,
        photographs=f"{len(real)} of `{options.photographs}`",
        seed=options.seed,
        command=repeated("landseer.ops.bench.reranking", options, *REPEATED),
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )
    return markdown(report), verdict(report)


def _query_ids(options: argparse.Namespace) -> QueryIds:
    chosen = np.random.default_rng(options.seed).choice(options.entries, 3 * options.queries, replace=False)
    warm, fresh, cold = ([entry_id(number) for number in some] for some in np.split(chosen, 3))
    return QueryIds(warm=warm, fresh=fresh, cold=cold)


def _source(options: argparse.Namespace, profile: Profile) -> PhotographSource:
    return PhotographSource(
        repository=options.repository,
        profile=profile,
        photographs=options.photographs,
        limit=options.like,
        home=options.scratch,
    )


def _sample(fitted: EntryDistribution, count: int, seed: int) -> list[Record]:
    """Return the first `count` entries of the store."""
    return list(chain.from_iterable(entries(fitted, count, seed=seed)))


@contextmanager
def _serving(folder: Path, options: argparse.Namespace, *, limit: int, console: Console) -> Iterator[GeneratedServing]:
    """Run Triton and an orchestrator over the store, after evicting all of its files from the page cache."""
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
        with console.status("starting the orchestrator"):
            started = _start(server, folder)
        with console.status("waiting until the server has checked its files"):
            _settle(folder)
        client = BlockingSearchClient(listen, timeout=ANSWER_S)
        ending.callback(client.close)
        statistics = tritonclient.InferenceServerClient(triton.grpc_url)
        ending.callback(statistics.close)
        yield GeneratedServing(
            client=client,
            asker=IdAsker(client, pid=server.pid),
            pid=server.pid,
            sessions=(triton.pid, server.pid),
            metrics=f"http://{metrics}/metrics",
            triton=statistics,
            data=folder / DATA,
            started=started,
        )


def _start(server: Orchestrator, folder: Path) -> Started:
    for file in folder.rglob("*"):
        if file.is_file():
            drop(file)
    began = time.monotonic()
    server.start()
    server.wait_ready(START_S)
    seconds = time.monotonic() - began
    own, most = (memory_bytes(server.pid, name) for name in ("RssAnon", "VmHWM"))
    return Started(seconds=seconds, own=own, most=most)


def _settle(folder: Path) -> None:
    """Wait until a server has checked the versions that it serves already. OpsError if it takes too long."""
    until = time.monotonic() + START_S
    while any(versions.unchecked is not None for versions in (Versions(folder), Versions(folder, WORDS))):
        if time.monotonic() > until:
            raise OpsError(f"the server did not finish checking the versions in {folder} within {START_S:.0f} s")
        time.sleep(LOOK_S)


def _rows(serving: GeneratedServing, ids: QueryIds, options: argparse.Namespace, console: Console) -> AskedPairs:
    """Run the pairs of searches: warm queries, new ones, and with nothing of the store in memory."""
    asker = serving.asker
    with console.status("warming up"):
        asker.pairs(ids.warm, alternate=True)
    with console.status("searching: warm queries"):
        before, asked = look(serving.metrics, serving.triton), list[AnswerPair]()
        for _ in range(options.rounds):
            asked += asker.pairs(ids.warm, alternate=True)
        parts = look(serving.metrics, serving.triton).rows_since(before)
    with console.status("searching: new queries"):
        new = asker.pairs(ids.fresh, alternate=False)
    with console.status("searching: nothing of the store in memory"):
        nothing, why = _cold(serving, ids.cold)
    return AskedPairs(warm=asked, fresh=new, cold=nothing, why_not_cold=why, parts=parts)


def _ways(serving: GeneratedServing, ids: QueryIds, options: argparse.Namespace, console: Console) -> list[WayTimes]:
    """Run the whole searches."""
    searches = WholeSearches(serving.client, ids.warm, rounds=options.rounds)
    with console.status("searching: in several ways, by one caller and by several"):
        return list(searches.times(lambda: evict(serving.pid, serving.data)))


def _cold(serving: GeneratedServing, ids: Sequence[str]) -> tuple[list[AnswerPair], str]:
    """Search after evicting the store from memory each time. If that is not permitted, return why, and no pairs."""
    try:
        return serving.asker.pairs(ids, alternate=False, before=lambda: evict(serving.pid, serving.data)), ""
    except OSError as error:
        return [], error.strerror or str(error)


if __name__ == "__main__":
    run_as_script(main)
