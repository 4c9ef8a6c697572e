"""The row `sift` of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.methods import SIFT, Method
from landseer.ops.evaluate.sift_system import SiftSystem
from landseer.ops.progress import bars
from landseer.ops.research.very_same_figures import Baseline

METHOD = Method(name=SIFT)


def by_sift(data: Dataset, cache: Path, console: Console) -> Baseline:
    """Search for the queries of a data set by the baseline. cache: the file that keeps keypoints."""
    system = SiftSystem(cache)
    readable = data.without(system.prepare(data, [METHOD], console))
    with bars(console) as progress:

        def begin(what: str, steps: int) -> Callable[[], None]:
            task = progress.add_task(f"{what}: {METHOD}", total=steps)
            return lambda: progress.advance(task)

        found = system.ranker(readable)(METHOD, begin)
    return Baseline(data=readable, orders=found.orders, milliseconds=found.milliseconds or 0.0)
