"""How near `landseer bulk` comes to the rate at which the bare graph describes on the same cores.

    python -m landseer.ops.bench.bulk --pictures-of ../shared/data/grocery/test

The bare graph is what a record needs of `describe_full`, in process, on pictures that are decoded already: as one
process for each core with a thread each, with huge pages as `landseer bulk` has them and without, and as one process
with a thread for each core; the fastest counts. `landseer bulk` takes its turns with it: with keypoints, as is the
default, and without. Writes docs/reports/bench-bulk.md.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from landseer.ensemble.config import KEYPOINTS, NONE, ServerConfig
from landseer.ensemble.cores import cores
from landseer.ensemble.index.codebooks import codebooks_of
from landseer.ensemble.index.configured_store import open_store
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.ingest.indexing import outputs_of
from landseer.ops import machine
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.bench.bench_command import bench_parser, run_as_script, write_report
from landseer.ops.bench.bulk_report import BulkReport, Trial, report
from landseer.ops.bench.bulk_run import bulk_run
from landseer.ops.bench.bulk_steps import WARM, bulk_steps
from landseer.ops.bench.graph_rate import GraphOrder, graph_rate
from landseer.ops.bulk.describer import DescribingOrder
from landseer.ops.bulk.sources import BulkPicture, find_sources
from landseer.ops.errors import OpsError
from landseer.ops.progress import bars

KINDS = (KEYPOINTS, NONE)
"""Of local features."""


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What is measured, and in which folder."""

    folder: Path
    repository: Path
    profile: Profile
    pictures: Sequence[BulkPicture]
    seconds: float

    @property
    def files(self) -> list[Path]:
        return [Path(one.absolute) for one in self.pictures]

    def config(self, kind: str, name: str) -> ServerConfig:
        return ServerConfig(store=self.folder / name, local_features=kind)

    def trial(self, kind: str, number: int) -> Trial:
        """Measure a kind of local features once."""
        bulk = bulk_run(self.pictures, self.config(kind, f"{kind}-{number}"), self.profile, self.repository)
        outputs = outputs_of(self.profile, deep=False, patches=kind == KEYPOINTS)
        order = GraphOrder(
            repository=self.repository,
            profile=self.profile,
            outputs=outputs,
            threads=1,
            huge_pages=False,
            seconds=self.seconds,
        )
        ways = [(cores(), order), (cores(), replace(order, huge_pages=True)), (1, replace(order, threads=cores()))]
        graphs = [graph_rate(way, self.files, processes=processes) for processes, way in ways]
        return Trial(bulk=bulk, graphs=graphs)

    def steps(self, pictures: int) -> dict[str, float]:
        """Return the seconds of a core a picture of each step, with keypoints."""
        config = self.config(KEYPOINTS, "steps")
        codebooks = codebooks_of(config)
        assert codebooks.keypoints is not None
        order = DescribingOrder(
            repository=self.repository, profile=self.profile, config=config, codebook=codebooks.keypoints.fingerprint
        )
        store = open_store(config, self.profile, codebooks)
        try:
            return bulk_steps(self.files[: pictures + WARM], order, store)
        finally:
            store.close()


def main() -> int:
    """Measure and write the report."""
    parser = bench_parser("bench-bulk", __doc__)
    add = parser.add_argument
    add("--pictures-of", nargs="+", required=True, metavar="FOLDER", help="where photographs are")
    add("--pictures", type=int, default=160, metavar="N", help="of these, drawn by chance (default %(default)s)")
    add("--rounds", type=int, default=2, metavar="N", help="turns of each (default %(default)s)")
    add("--seconds", type=float, default=10.0, metavar="S", help="of the bare graph in each turn (default %(default)s)")
    add("--steps", type=int, default=40, metavar="N", help="pictures described step by step (default %(default)s)")
    options, console = parser.parse_args(), Console()
    return write_report(lambda: (report(_measured(options, console)), True), options.out, console)


def _measured(options: argparse.Namespace, console: Console) -> BulkReport:
    found = find_sources(options.pictures_of).pictures
    if len(found) < options.pictures:
        raise OpsError(
            f"got {len(found)} pictures, expected {options.pictures}; name more folders, or fewer --pictures"
        )
    with tempfile.TemporaryDirectory(prefix="bench-bulk-") as folder, bars(console) as progress:
        bench = _Bench(
            folder=Path(folder),
            repository=options.repository.absolute(),
            profile=read_profile(options.repository),
            pictures=random.Random(options.seed).sample(found, options.pictures),
            seconds=options.seconds,
        )
        trials: dict[str, list[Trial]] = {kind: [] for kind in KINDS}
        task = progress.add_task("measuring", total=options.rounds * len(KINDS) + 1)
        for number in range(options.rounds):
            for kind in KINDS:
                trials[kind].append(bench.trial(kind, number))
                progress.advance(task)
        steps = bench.steps(options.steps)
        progress.advance(task)
    return BulkReport(
        keypoints=trials[KEYPOINTS],
        none=trials[NONE],
        steps=steps,
        pictures=options.pictures,
        stepped=options.steps,
        cores=cores(),
        machine=machine.describe(threads=cores()),
        command=_command(options),
    )


def _command(options: argparse.Namespace) -> str:
    folders = " ".join(options.pictures_of)
    numbers = " ".join(
        f"--{name} {getattr(options, name)}" for name in ("pictures", "rounds", "seconds", "steps", "seed")
    )
    return f"python -m landseer.ops.bench.bulk --pictures-of {folders} {numbers}"


if __name__ == "__main__":
    run_as_script(main)
