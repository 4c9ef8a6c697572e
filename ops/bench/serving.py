"""`make bench-serving`: compare `describe` through Triton with the same graph in process, on the same cores."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.cores import cores
from landseer.ensemble.inference.profile import Profile
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.breakdown import Counters, breakdown, counters
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.contest import (
    Contest,
    check_hits,
    check_vectors,
    describe_contest,
    graphs,
    play,
    search_contest,
)
from landseer.ops.bench.cpu_time import cpu_time
from landseer.ops.bench.direct import DirectDescribe
from landseer.ops.bench.eager import eager_round
from landseer.ops.bench.pictures import Picture, pictures
from landseer.ops.bench.served import TritonDescribe, index
from landseer.ops.bench.serving_report import ServingReport, markdown, verdict
from landseer.ops.bench.statistics import Round
from landseer.ops.machine import describe as describe_machine
from landseer.ops.progress import bars
from landseer.ops.run.orchestrator import PATIENT
from landseer.ops.run.stack import Stack, StackConfig
from landseer.ops.scratch import scratch_folder

AT_LEAST = 0.85
"""Share of the throughput in process that serving has to reach."""
EAGER = 4
"""Number of pictures for eager torch, one of each shape."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything that is prepared before measuring."""

    describe: Contest
    search: Contest
    pictures: Sequence[Picture]
    graph: DirectDescribe
    triton: TritonDescribe
    agreement: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. Returns 0 if serving reaches `AT_LEAST`, 1 if not or if it cannot be measured."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = bench_parser("bench-serving", __doc__)
    parser.add_argument(
        "--rounds", type=positive, default=12, metavar="N", help="rounds to measure (default %(default)s)"
    )
    parser.add_argument(
        "--requests",
        type=positive,
        default=12,
        metavar="N",
        help="requests per contender and round (default %(default)s)",
    )
    return parser.parse_args(argv)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, profile = time.monotonic(), read_profile(options.repository)
    machine = describe_machine(threads=cores())
    with _serving(options, console) as stack, BlockingSearchClient(stack.search_address, timeout=120.0) as client:
        with console.status("compiling the graph in process, indexing, comparing answers"):
            bench = _prepare(options, profile, stack, client)
        sessions = (stack.triton.pid, stack.orchestrator.pid)
        before = cpu_time(sessions)
        rounds, batched = _play(bench, options, console)
        others = cpu_time(sessions).others_since(before)
        with console.status("measuring where the time goes"):
            parts = breakdown(bench.triton, bench.graph, bench.pictures)
    with console.status("measuring eager torch"):
        eager = eager_round(profile, bench.pictures[:EAGER], threads=cores())
    report = ServingReport(
        contests=(bench.describe, bench.search),
        rounds=rounds,
        batched=batched,
        parts=parts,
        eager=eager,
        machine=machine,
        others=others,
        backbone=profile.backbone,
        precision=bench.graph.precision,
        agreement=bench.agreement,
        pictures=bench.pictures,
        at_least=AT_LEAST,
        seed=options.seed,
        command=repeated("landseer.ops.bench.serving", options, "rounds", "requests", "seed"),
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )
    return markdown(report), verdict(report)


@contextmanager
def _serving(options: argparse.Namespace, console: Console) -> Iterator[Stack]:
    """Run Triton and the orchestrator on an empty store."""
    with scratch_folder("bench") as folder:
        config = StackConfig(repository=options.repository, store=folder / "store", serve_args=PATIENT)
        stack = Stack(config)
        try:
            with console.status("starting Triton and the orchestrator"):
                stack.start()
            yield stack
        finally:
            stack.stop()


def _prepare(options: argparse.Namespace, profile: Profile, stack: Stack, client: BlockingSearchClient) -> Bench:
    some, ways = pictures(profile), graphs(options.repository, profile, cores=cores())
    index(client, some)
    describe = describe_contest(ways, stack.triton.grpc_url, requests=options.requests)
    # Searches vary less, so fewer of them are enough.
    search = search_contest(ways, client, some, profile, requests=max(1, options.requests * 2 // 3))
    agreement = check_vectors(describe, some)
    check_hits(search, some)
    return Bench(
        describe=describe,
        search=search,
        pictures=some,
        graph=ways[0][0],
        triton=TritonDescribe(stack.triton.grpc_url),
        agreement=agreement,
    )


def _play(bench: Bench, options: argparse.Namespace, console: Console) -> tuple[dict[str, list[Round]], Counters]:
    """Play all rounds. Also return Triton's counters over the turns with many callers."""
    contests, many = (bench.describe, bench.search), bench.describe.served[-1].name
    batched = counters(bench.triton.client).since(counters(bench.triton.client))
    turns_to_come = (options.rounds + 1) * sum(len(contest.contenders) for contest in contests)
    with bars(console) as progress:
        task = progress.add_task("measuring", total=turns_to_come)

        def around(contender: Contender, turn: Callable[[], Round]) -> Round:
            nonlocal batched
            progress.update(task, description=f"{contender.name:<45}")
            before = counters(bench.triton.client)
            taken = turn()
            if contender.name == many:
                batched = batched.plus(counters(bench.triton.client).since(before))
            progress.advance(task)
            return taken

        return play(contests, bench.pictures, rounds=options.rounds, around=around), batched


if __name__ == "__main__":
    run_as_script(main)
