"""`make bench-instrumentation`: what metrics, logs and traces cost, on and off, over the same Triton, in turns."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.arguments import positive
from landseer.ops.backend.inprocess import cores, read_profile
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.pictures import Picture, pictures, sequence
from landseer.ops.bench.served import index
from landseer.ops.bench.serving_report import table
from landseer.ops.bench.statistics import MedianEstimate, Round, estimate, latency, ratios, throughputs, turns
from landseer.ops.errors import OpsError
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.triton import TritonConfig, TritonServer
from landseer.ops.watch.prometheus import Prometheus, PrometheusConfig

MOST = 0.02
"""Share of the throughput that all instrumentation may cost."""
CALLERS = 4
OFF, ON = "no instrumentation", "metrics and JSON logs"
TRACED = "metrics, JSON logs and traces of every call"
BY_PICTURE, BY_ID = "search with a picture", "search with an id"
REQUESTS = {BY_PICTURE: 12, BY_ID: 400}
"""In a turn. Those by id describe nothing, so what is around them weighs most."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rounds of every contender, by kind of search and then by instrumentation."""

    rounds: Mapping[tuple[str, str], Sequence[Round]]
    seed: int

    def ratio(self, kind: str, level: str) -> MedianEstimate:
        """Return the throughput of a level of instrumentation over that of none."""
        return estimate(ratios(self.rounds[kind, level], self.rounds[kind, OFF]), seed=self.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report. 0 if searches with a picture lose no more than `MOST` to all of it."""
    options, console = _options(argv), Console()
    try:
        text, kept = _measure(options, console)
    except OpsError as error:
        print(f"landseer: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    options.out.write_text(text, encoding="utf-8")
    console.print(Markdown(text))
    console.print(f"Written to {options.out}.")
    return 0 if kept else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-instrumentation", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("docs/reports/bench-instrumentation.md"), metavar="FILE")
    parser.add_argument("--rounds", type=positive, default=20, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default %(default)s)")
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
        measured = Measured(rounds=_play(clients, some, options.rounds, console), seed=options.seed)
    worst = measured.ratio(BY_PICTURE, TRACED)
    kept = worst.median >= 1 - MOST
    text = _markdown(measured, machine, options, seconds=time.monotonic() - began, kept=kept)
    return text, kept


@contextmanager
def _servers(repository: Path) -> Iterator[dict[str, BlockingSearchClient]]:
    """Run one Triton, an orchestrator of each kind over it, and what looks at them; yield a client of each."""
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="landseer-bench-")))
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
                extra_args=() if name == OFF else ("--log-format", "json"),
                module=module,
                env=env,
            )
            server = Orchestrator(config)
            ending.callback(server.stop)
            server.start()
            server.wait_ready()
            if name != OFF:
                # Every second: fifteen times as often as ops/prometheus/prometheus.yml has it.
                ending.enter_context(Prometheus(PrometheusConfig(targets={"landseer": metrics})))
            client = BlockingSearchClient(config.listen, timeout=120.0)
            ending.callback(client.close)
            clients[name] = client
        yield clients


def _play(
    clients: Mapping[str, BlockingSearchClient], some: Sequence[Picture], rounds: int, console: Console
) -> dict[tuple[str, str], list[Round]]:
    """Let all take turns, one round more than asked; the first only warms up."""
    contenders = {
        (kind, level): _contender(kind, level, client) for kind in REQUESTS for level, client in clients.items()
    }
    measured: dict[tuple[str, str], list[Round]] = {key: [] for key in contenders}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
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
        client.search(picture.data, top_k=10)

    def by_id(picture: Picture) -> None:
        client.search(picture.id, top_k=10)

    return Contender(name=f"{kind}, {level}", callers=(by_picture if kind == BY_PICTURE else by_id,) * CALLERS)


def _markdown(
    measured: Measured, machine: Sequence[tuple[str, str]], options: argparse.Namespace, *, seconds: float, kept: bool
) -> str:
    worst = measured.ratio(BY_PICTURE, TRACED)
    now = datetime.now(timezone.utc)
    parts = [
        "# What watching costs\n\n"
        f"Written by `make bench-instrumentation` on {now:%Y-%m-%d %H:%M} UTC; the next run writes it anew.\n"
        f"`python -m landseer.ops.bench.instrumentation --rounds {options.rounds} --seed {options.seed}`, "
        f"{seconds:.0f} s.\n\n"
        f"**All of it leaves {_interval(worst)} of the throughput of searches with a picture** (median, 95% interval). "
        f"It may cost\n{MOST:.0%}: {'kept' if kept else '**not kept**'}.",
        *(_kind(measured, kind) for kind in REQUESTS),
        table(("machine", ""), machine),
        "## How it was measured\n\n"
        f"- One Triton, three orchestrators over it, each with the same pictures; {CALLERS} callers. "
        f"They take turns, in an\n  order that changes from round to round; {options.rounds} rounds "
        "after one to warm up. Ratios are taken within a round.\n"
        "- Without instrumentation every collector is replaced by one that does nothing (`ops/bench/bare.py`);\n"
        "  requests have their ids all the same.\n"
        "- Prometheus scrapes each of the others every second. Traces are of every call, and go to a collector on the "
        "same cores\n  that drops them. What Prometheus and the collector use is part of the cost.",
    ]
    return "\n\n".join(parts) + "\n"


def _kind(measured: Measured, kind: str) -> str:
    rows = [
        (
            level,
            f"{np.median(throughputs(measured.rounds[kind, level])):.2f}",
            f"{latency(measured.rounds[kind, level], 0.5) * 1e3:.1f}",
            "1 (baseline)" if level == OFF else _interval(measured.ratio(kind, level)),
        )
        for level in (OFF, ON, TRACED)
    ]
    return f"## {kind.capitalize()}\n\n" + table(("", "searches/s", "p50 ms", "of none, 95% interval"), rows)


def _interval(found: MedianEstimate) -> str:
    return f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    # Told to end, it ends what it started, as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
