"""Evaluate every method on one system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import Progress

from landseer.ensemble.evaluation import Protocol, evaluate
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.failures import failures
from landseer.ops.evaluate.figures import KS, MethodRow
from landseer.ops.evaluate.methods import NO_EXPANSION, Method
from landseer.ops.evaluate.sweep import Point, swept
from landseer.ops.evaluate.system import Searched, System
from landseer.ops.progress import bars


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What to measure."""

    methods: Sequence[Method]
    """Rows of the table."""
    neighbours: Sequence[int]
    """Numbers of neighbours of the sweep; empty for no sweep."""
    positions: int
    """The most neighbours that LAttQE takes."""
    seed: int
    """Of the intervals."""
    failures: bool
    """Whether to keep the worst queries."""
    base: Method | None = NO_EXPANSION
    """What the others are compared to; None for nothing."""

    @property
    def sweep(self) -> list[Method]:
        """The methods of the sweep, by family and number of neighbours."""
        return list(swept(self.methods, self.neighbours, positions=self.positions))

    @property
    def asked(self) -> list[Method]:
        """Every method once, grouped by database; first the one that the others are compared to."""
        base = [] if self.base is None else [self.base]
        methods = dict.fromkeys([*base, *self.methods, *self.sweep])
        databases = list(dict.fromkeys(method.database for method in methods))
        return sorted(methods, key=lambda method: databases.index(method.database))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The figures of a system."""

    rows: list[MethodRow]
    points: list[Point]


def judge(system: System, dataset: Dataset, plan: EvaluationPlan, console: Console) -> Judged:
    """Rank by every method and judge each ranking by every protocol. OpsError."""
    rank, rows = system.ranker(dataset), dict[tuple[Method, Protocol], MethodRow]()
    with bars(console) as progress:
        for method in plan.asked:
            found = rank(method, partial(_begin, progress, method))
            for row in _rows(system.about.name, method, found, dataset, plan):
                rows[method, row.protocol] = row.over(rows.get((NO_EXPANSION, row.protocol)))
            for task in progress.task_ids:
                progress.remove_task(task)
    places = dataset.protocols
    return Judged(
        rows=[rows[method, protocol] for method in plan.methods for protocol in places],
        points=[_point(rows[method, protocol]) for method in plan.sweep for protocol in places],
    )


def _begin(progress: Progress, method: Method, what: str, steps: int) -> Callable[[], None]:
    """Show a progress bar for a task. Returns a function that advances it by one step."""
    return partial(progress.advance, progress.add_task(f"{what}: {method}", total=steps))


def _rows(name: str, method: Method, found: Searched, dataset: Dataset, plan: EvaluationPlan) -> Iterator[MethodRow]:
    truths, classes = dataset.truths(), dataset.classes()
    for protocol in dataset.protocols:
        figures = evaluate(found.orders, truths, protocol=protocol, ks=KS)
        worst = failures(found.orders, truths, figures.aps, protocol=protocol) if plan.failures else ()
        yield MethodRow(
            system=name,
            method=method,
            protocol=protocol,
            figures=figures,
            base=figures,
            classes=classes,
            seed=plan.seed,
            failures=worst,
            milliseconds=found.milliseconds,
            index_bytes=found.index_bytes,
        )


def _point(row: MethodRow) -> Point:
    return Point(system=row.system, method=row.method, protocol=row.protocol, map=row.figures.map, base=row.base.map)
