"""`make chaos`: hurt the real processes in every way we know, and report what callers saw and what was lost."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.cores import cores
from landseer.ops.arguments import positive
from landseer.ops.bench.bench_command import run_as_script, write_report
from landseer.ops.chaos.album import Album
from landseer.ops.chaos.damage import flips
from landseer.ops.chaos.history import Verdict
from landseer.ops.chaos.history_trial import history_trial, what_happened
from landseer.ops.chaos.kills import run_kills
from landseer.ops.chaos.plan import every_fault
from landseer.ops.chaos.report import ChaosReport, markdown, verdict
from landseer.ops.chaos.scene import Scene
from landseer.ops.chaos.trial import Outcome, left_out, run_trial, seconds
from landseer.ops.chaos.version_kills import version_kills
from landseer.ops.machine import describe as describe_machine
from landseer.ops.run.triton import TritonConfig, TritonServer
from landseer.ops.scratch import scratch_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write the report. Returns 0 if every promise was kept, 1 if not or if it could not be tried."""
    options, console = _options(argv), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    option = parser.add_argument
    option("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    option(
        "--out", type=Path, default=Path("docs/reports/chaos.md"), metavar="FILE", help="report (default %(default)s)"
    )
    option("--only", default="", metavar="TEXT", help="try only the faults whose names contain this")
    option("--minutes", type=float, default=9.0, metavar="N", help="begin no fault after this (default %(default)g)")
    option("--history", type=float, default=60.0, metavar="S", help="seconds of history (default %(default)g)")
    option("--flips", type=int, default=300, metavar="N", help="bits to flip (default %(default)s)")
    option("--kills", type=positive, default=100, metavar="N", help="kills in each test (default %(default)s)")
    option(
        "--version-kills",
        type=positive,
        default=40,
        metavar="N",
        help="kills of the orchestrator while it merges (default %(default)s, 6 s each; a full run has 300)",
    )
    option("--seed", type=int, default=0, metavar="N", help="random seed (default %(default)s)")
    return parser.parse_args(argv)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, machine, load = time.monotonic(), describe_machine(threads=cores()), os.getloadavg()[0]
    with scratch_folder("chaos") as folder:
        triton = TritonServer(TritonConfig(repository=options.repository))
        with Scene(triton, folder=folder) as scene:
            album = _album(scene)
            outcomes, history = _tried(scene, album, options, console)
            console.print(f"{options.version_kills} kills while the index is merged follow")
            killed = version_kills(scene, album, count=options.version_kills, seed=options.seed)
        damage = flips(scene.store, count=options.flips, seed=options.seed)
    console.print(f"{options.kills} kills of each kind of writer follow")
    kills = run_kills(options.kills)
    report = ChaosReport(
        outcomes=outcomes,
        history=history,
        history_faults=what_happened(),
        damage=damage,
        kills=kills,
        version_kills=killed,
        machine=machine,
        load=(load, os.getloadavg()[0]),
        command=f"python -m landseer.ops.chaos.command --minutes {options.minutes:g} --kills {options.kills} "
        f"--version-kills {options.version_kills} --history {options.history:g} --flips {options.flips} "
        f"--seed {options.seed}",
        date=datetime.now(timezone.utc),
        seconds=time.monotonic() - began,
    )
    return markdown(report), verdict(report)


def _album(scene: Scene) -> Album:
    with BlockingSearchClient(scene.address) as client:
        return Album.indexed(client)


def _tried(scene: Scene, album: Album, options: argparse.Namespace, console: Console) -> tuple[list[Outcome], Verdict]:
    outcomes, until = [], time.monotonic() + 60 * options.minutes
    for fault in every_fault():
        if options.only in fault.name:
            outcome = run_trial(scene, album, fault) if time.monotonic() < until else left_out(fault)
            took = outcome.skipped or f"recovered after {seconds(outcome.recovered_s)} s"
            console.print(f"{'' if outcome.good else 'NOT AS PROMISED '}{fault.name}: {took}", highlight=False)
            outcomes.append(outcome)
    return outcomes, history_trial(scene, seconds=options.history, seed=options.seed)


if __name__ == "__main__":
    run_as_script(main)
