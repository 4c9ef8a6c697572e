"""`make bench-instrumentation`: measure what metrics, logs and traces cost."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.cores import cores
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.pictures import Picture, pictures, sequence
from landseer.ops.bench.report_parts import interval, table
from landseer.ops.bench.served import index
from landseer.ops.bench.statistics import MedianEstimate, Round, estimate, latency, ratios, throughputs, turns
from landseer.ops.machine import describe as describe_machine
from landseer.ops.progress import bars
from landseer.ops.run.orchestrator import PATIENT, Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.triton import TritonConfig, TritonServer
from landseer.ops.scratch import scratch_folder
from landseer.ops.watch.prometheus import Prometheus, PrometheusConfig

MOST = 0.02
"""Share of the throughput that the whole instrumentation may cost."""
CALLERS = 4
OFF, ON = "no instrumentation", "metrics and JSON logs"
TRACED = "metrics, JSON logs and traces of every call"
BY_PICTURE, BY_ID = "search with a picture", "search with an id"
REQUESTS = {BY_PICTURE: 12, BY_ID: 400}
"""Per turn. A search by id runs no model, so overhead weighs most there."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRounds:
    """The rounds of every contender, by kind of search and level of instrumentation."""

    rounds: Mapping[tuple[str, str], Sequence[Round]]
    seed: int

    def ratio(self, kind: str, level: str) -> MedianEstimate:
        """Return the throughput at a level of instrumentation divided by the throughput without any."""
        return estimate(ratios(self.rounds[kind, level], self.rounds[kind, OFF]), seed=self.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. Returns 0 if searches with a picture lose at most `MOST` of their throughput."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = bench_parser("bench-instrumentation", __doc__)
    parser.add_argument(
        "--rounds", type=positive, default=20, metavar="N", help="rounds to measure (default %(default)s)"
    )
    return parser.parse_args(argv)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, machine = time.monotonic(), describe_machine(threads=cores())
    some = pictures(read_profile(options.repository))
    with ExitStack() as ending:
        with console.status("starting Triton, three orchestrators, Prometheus and a collector"):
            clients = ending.enter_context(_servers(options.repository))
        with console.status("indexing"):
            for client in clients.values():
                index(client, some)
        measured = MeasuredRounds(rounds=_play(clients, some, options.rounds, console), seed=options.seed)
    worst = measured.ratio(BY_PICTURE, TRACED)
    kept = worst.median >= 1 - MOST
    text = _markdown(measured, machine, options, seconds=time.monotonic() - began, kept=kept)
    return text, kept


@contextmanager
def _servers(repository: Path) -> Iterator[dict[str, BlockingSearchClient]]:
    """Run one Triton, three orchestrators, Prometheus and a collector; yield a client of each orchestrator."""
    with ExitStack() as ending:
        folder = ending.enter_context(scratch_folder("bench"))
        triton = TritonServer(TritonConfig(repository=repository))
        ending.callback(triton.stop)
        triton.start()
        triton.wait_ready(180.0)
        sink = f"{LOOPBACK}:{free_port()}"
        collector = Child.start(ChildConfig(command=[sys.executable, "-m", "landseer.ops.bench.sink", sink]))
        ending.callback(collector.stop)
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink}"}
        clients: dict[str, BlockingSearchClient] = {}
        for name, module, env in (
            (OFF, "landseer.ops.bench.bare", {}),
            (ON, "landseer.client.cli", {}),
            (TRACED, "landseer.client.cli", traced),
        ):
            metrics = f"{LOOPBACK}:{free_port()}"
            config = OrchestratorConfig(
                listen=f"{LOOPBACK}:{free_port()}",
                triton=triton.grpc_url,
                store=folder / str(len(clients)),
                metrics=metrics,
                extra_args=PATIENT if name == OFF else (*PATIENT, "--log-format", "json"),
                module=module,
                env=env,
            )
            server = Orchestrator(config)
            ending.callback(server.stop)
            server.start()
            server.wait_ready()
            if name != OFF:
                # Every second: fifteen times as often as in ops/prometheus/prometheus.yml.
                ending.enter_context(Prometheus(PrometheusConfig(targets={"landseer": metrics})))
            client = BlockingSearchClient(config.listen, timeout=120.0)
            ending.callback(client.close)
            clients[name] = client
        yield clients


def _play(
    clients: Mapping[str, BlockingSearchClient], some: Sequence[Picture], rounds: int, console: Console
) -> dict[tuple[str, str], list[Round]]:
    """Let all contenders take turns, for `rounds` rounds after one that only warms up."""
    contenders = {
        (kind, level): _contender(kind, level, client) for kind in REQUESTS for level, client in clients.items()
    }
    measured: dict[tuple[str, str], list[Round]] = {key: [] for key in contenders}
    with bars(console) as progress:
        task = progress.add_task("measuring", total=(rounds + 1) * len(contenders))
        for number, order in enumerate(turns(list(contenders), rounds + 1)):
            for key in order:
                taken = contenders[key].turn(sequence(some, REQUESTS[key[0]], start=number))
                progress.advance(task)
                if number:
                    measured[key].append(taken)
    return measured


def _contender(kind: str, level: str, client: BlockingSearchClient) -> Contender:
    def by_picture(picture: Picture) -> None:
        client.search(picture.data, top_k=10, first_stage="global", reranking="none")

    def by_id(picture: Picture) -> None:
        client.search(picture.id, top_k=10, first_stage="global", reranking="none")

    return Contender(name=f"{kind}, {level}", callers=(by_picture if kind == BY_PICTURE else by_id,) * CALLERS)


def _markdown(
    measured: MeasuredRounds,
    machine: Sequence[tuple[str, str]],
    options: argparse.Namespace,
    *,
    seconds: float,
    kept: bool,
) -> str:
    worst = measured.ratio(BY_PICTURE, TRACED)
    now = datetime.now(timezone.utc)
    parts = [
        "# What metrics, logs and traces cost\n\n"
        f"Written by `make bench-instrumentation` on {now:%Y-%m-%d %H:%M} UTC; the next run overwrites it.\n"
        f"`{repeated('landseer.ops.bench.instrumentation', options, 'rounds', 'seed')}`, "
        f"{seconds:.0f} s.\n\n"
        f"**With all instrumentation, searches with a picture reach {interval(worst, 3)} of the throughput without**\n"
        f"(median, 95% interval). The limit is a loss of {MOST:.0%}: {'met' if kept else '**not met**'}.",
        *(_kind(measured, kind) for kind in REQUESTS),
        table(("machine", ""), machine),
        "## How it was measured\n\n"
        f"- Three orchestrators use one Triton and hold the same pictures; {CALLERS} callers. They take turns,\n"
        f"  in an order that changes from round to round: {options.rounds} rounds after a warm-up round. Ratios\n"
        "  are taken within a round.\n"
        "- Without instrumentation, every collector is replaced by one that does nothing (`ops/bench/bare.py`);\n"
        "  requests still get their ids.\n"
        "- Prometheus scrapes the other two every second. Every call is traced; a collector on the same cores gets\n"
        "  the traces and drops them. The cost includes the CPU time of Prometheus and the collector.",
    ]
    return "\n\n".join(parts) + "\n"


def _kind(measured: MeasuredRounds, kind: str) -> str:
    rows = [
        (
            level,
            f"{np.median(throughputs(measured.rounds[kind, level])):.2f}",
            f"{latency(measured.rounds[kind, level], 0.5) * 1e3:.1f}",
            "1 (baseline)" if level == OFF else interval(measured.ratio(kind, level), 3),
        )
        for level in (OFF, ON, TRACED)
    ]
    return f"## {kind.capitalize()}\n\n" + table(("", "searches/s", "p50 ms", "ratio to none, 95% interval"), rows)


if __name__ == "__main__":
    run_as_script(main)
