"""The report of bulk indexing against the bare graph, in Markdown; every number comes from one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from landseer.client.readable import plural
from landseer.ops.bench.bulk_run import BulkRun
from landseer.ops.bench.bulk_steps import MODELS, SIFT
from landseer.ops.bench.graph_rate import GraphRate
from landseer.ops.bench.report_parts import machine_table, noise, table

MIB = 2**20
AT_LEAST = 0.9
"""Of the bare graph's rate."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """`landseer bulk` and the bare graph, one after the other."""

    bulk: BulkRun
    graphs: Sequence[GraphRate]

    @property
    def graph(self) -> GraphRate:
        """The fastest way to run the graph."""
        return max(self.graphs, key=lambda one: one.rate)

    @property
    def ratio(self) -> float:
        """Of the rates."""
        return self.bulk.rate / self.graph.rate

    @property
    def processor_ratio(self) -> float:
        """Of the rates, if no core were ever idle: of the processor time a picture."""
        return min(one.processor for one in self.graphs) / self.bulk.whole


@dataclass(frozen=True, kw_only=True)
class BulkReport:
    """All results of a run, and what it ran on."""

    keypoints: Sequence[Trial]
    none: Sequence[Trial]
    """With `--local-features none`."""
    steps: Mapping[str, float]
    """Seconds of a core a picture."""
    pictures: int
    stepped: int
    """Pictures described step by step."""
    cores: int
    machine: Sequence[tuple[str, str]]
    command: str


def report(found: BulkReport) -> str:
    """Return the report."""
    others = statistics.mean(one.bulk.others for one in (*found.keypoints, *found.none))
    return "\n".join(
        [
            "# Bulk indexing and the bare graph",
            "",
            f"Written by `make bench-bulk` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; the next run writes it anew. "
            f"`{found.command}`",
            "",
            _verdict(found) + noise(others),
            "",
            "The bare graph: what a record needs of `describe_full`, in process, on the same pictures, decoded before. "
            "It finds no keypoints: OpenCV does, beside it. `landseer bulk` counts from when each worker has described "
            "its first pictures to the last one in the store.",
            "",
            _rates(found),
            "",
            "## Where the time goes",
            "",
            f"Milliseconds of a core a picture, while `landseer bulk` described ({found.cores} cores).",
            "",
            _kinds(found),
            "",
            f"Step by step, {found.stepped} pictures in one process:",
            "",
            _steps(found),
            "",
            machine_table(found.machine, others),
            "",
        ]
    )


def _verdict(found: BulkReport) -> str:
    both = (found.keypoints, found.none)
    with_keypoints, without = (_median(trials, lambda one: one.ratio) for trials in both)
    by_processor = [_median(trials, lambda one: one.processor_ratio) for trials in both]
    kept = "kept" if with_keypoints >= AT_LEAST else "not kept" if without < AT_LEAST else "kept without keypoints only"
    return (
        f"**`landseer bulk` describes at {with_keypoints:.2f} of the rate of the bare graph with keypoints, "
        f"at {without:.2f} with `--local-features none`** (medians of {len(found.keypoints)} turns). "
        f"By processor time, which other programs change less, at {by_processor[0]:.2f} and {by_processor[1]:.2f}. "
        f"It should keep {AT_LEAST}: {kept}."
    )


def _rates(found: BulkReport) -> str:
    rows = []
    for name, trials in (("with keypoints", found.keypoints), ("`--local-features none`", found.none)):
        for place, graph in enumerate(trials[0].graphs):
            rates = [trial.graphs[place] for trial in trials]
            threads = "one thread" if graph.threads == 1 else f"{graph.threads} threads"
            pages = ", huge pages" if graph.huge_pages else ""
            said = f"graph, {name}: {plural(graph.processes, 'process', 'processes')} of {threads}{pages}"
            rows.append((said, _list([one.rate for one in rates]), _ms([one.processor for one in rates]), ""))
        runs = [trial.bulk for trial in trials]
        spent = [one.whole for one in runs]
        ratios = _list([trial.ratio for trial in trials])
        rows.append((f"`landseer bulk`, {name}", _list([one.rate for one in runs]), _ms(spent), ratios))
    starts = [trial.bulk for trial in (*found.keypoints, *found.none)]
    return "\n".join(
        [
            table(("", "pictures/s, each turn", "ms of a core a picture", "of the graph's rate"), rows),
            "",
            f"{found.pictures} pictures. To start took {statistics.median(one.start_s for one in starts):.0f} s and "
            f"{statistics.median(one.start_processor for one in starts):.0f} s of a core, with each worker's first "
            f"pictures. A worker had {max(one.memory for one in starts) / MIB:,.0f} MiB of its own.",
        ]
    )


def _kinds(found: BulkReport) -> str:
    kinds = list(found.keypoints[0].bulk.spent)
    rows = [
        (kind, *(_ms([trial.bulk.processor(kind) for trial in trials]) for trials in (found.keypoints, found.none)))
        for kind in kinds
    ]
    idle = [
        _ms([(found.cores - trial.bulk.busy) * trial.bulk.seconds / trial.bulk.pictures for trial in trials])
        for trials in (found.keypoints, found.none)
    ]
    return table(("", "with keypoints", "none"), [*rows, ("idle, or other programs", *idle)])


def _steps(found: BulkReport) -> str:
    models = found.steps[MODELS]
    rows = [(name, f"{spent * 1000:.1f}", f"{spent / models:.3f}") for name, spent in found.steps.items()]
    whole = sum(spent for name, spent in found.steps.items() if name != SIFT)
    return table(
        ("", "ms of a core", "of the models"), [*rows, ("all", f"{whole * 1000:.1f}", f"{whole / models:.3f}")]
    )


def _median(trials: Sequence[Trial], value: Callable[[Trial], float]) -> float:
    return statistics.median(map(value, trials))


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in values)


def _ms(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f}"
