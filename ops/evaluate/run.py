"""One evaluation from the data set's name to its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from landseer.ensemble.evaluation import evaluate
from landseer.ensemble.profile import Profile
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.describe import Described, describe_all
from landseer.ops.evaluate.lattqe import Lattqe
from landseer.ops.evaluate.methods import Expander, Method, parse, rankings
from landseer.ops.evaluate.readers import pictures_in, read
from landseer.ops.evaluate.results import KS, Results, Row
from landseer.ops.inprocess import Graph, backbone_settings, cores, read_profile
from landseer.ops.processes import OpsError

SHOWN = 5
"""Unreadable pictures that are named."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for."""

    data: str
    methods: str
    queries: int | None
    distractors: str | None
    repository: Path
    cache: Path
    seed: int
    json: Path | None


def run(options: Options, console: Console) -> Results:
    """Evaluate, print the table, write the JSON if asked to. OpsError says what is wrong and how to mend it."""
    profile = read_profile(options.repository)
    methods = [parse(text, positions=profile.sizes.neighbours) for text in options.methods.split(",")]
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise OpsError(f"cannot write {options.json}: there is no folder {options.json.absolute().parent}")
    dataset = _dataset(options)
    found = _described(dataset, profile, options, console)
    _warn(found.unreadable, console)
    dataset = dataset.without(found.unreadable)
    if not any(len(truth.easy) + len(truth.hard) for truth in dataset.truths()):
        raise OpsError(f"{dataset.name}: of the pictures that can be read, no query has a right answer left")
    rows = list(_rows(dataset, methods, found, Lattqe(options.repository, profile), console))
    results = Results(dataset=dataset, rows=rows, profile=profile, seed=options.seed)
    results.print()
    if profile.untrained:
        console.print(f"never trained: {', '.join(profile.untrained)}", style="yellow")
    if options.json is not None:
        results.write(options.json)
    return results


def _dataset(options: Options) -> Dataset:
    dataset = read(options.data).sampled(options.queries, options.seed)
    if options.distractors is None:
        return dataset
    return dataset.with_distractors(pictures_in(Path(options.distractors)))


def _described(dataset: Dataset, profile: Profile, options: Options, console: Console) -> Described:
    shots = dataset.pictures()
    columns = (TextColumn("describing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with console.status("compiling the backbone"):
        graph = Graph(backbone_settings(options.repository, profile.version, threads=cores()))
    with vector_cache(options.cache, profile.fingerprint) as cache, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(shots))
        return describe_all(shots, graph, profile, cache, progress=lambda: progress.advance(task))


def _warn(unreadable: dict[Path, str], console: Console) -> None:
    for path, why in sorted(unreadable.items())[:SHOWN]:
        console.print(f"skipped {path}: {why}", style="yellow", markup=False, highlight=False)
    if len(unreadable) > SHOWN:
        console.print(f"and {len(unreadable) - SHOWN:,} more that cannot be read", style="yellow")


def _rows(
    dataset: Dataset, methods: Sequence[Method], found: Described, lattqe: Expander, console: Console
) -> Iterator[Row]:
    """Yield what each method reaches by each protocol."""
    queries = np.stack([found.vectors[query.shot] for query in dataset.queries])
    references = np.stack([found.vectors[Shot(path=path)] for path in dataset.references])
    truths, own = dataset.truths(), dataset.own_rows()
    for method in methods:
        with console.status(f"ranking: {method}"):
            ranked = list(rankings(method, queries, references, own, lattqe=lattqe))
        for protocol in dataset.protocols:
            yield Row(method=method, protocol=protocol, figures=evaluate(ranked, truths, protocol=protocol, ks=KS))
