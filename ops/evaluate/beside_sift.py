"""A system with the baseline as one more row of its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ops.evaluate.database import Begin
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.methods import SIFT, Method
from landseer.ops.evaluate.sift_system import SiftSystem
from landseer.ops.evaluate.system import About, Rank, Searched, System


class BesideSift:
    """Ranks by `sift` in this process, and by every other method with a system."""

    def __init__(self, system: System, sift: SiftSystem) -> None:
        self._system, self._sift = system, sift

    @property
    def about(self) -> About:
        """The description of the system; `sift` is the same beside any."""
        return self._system.about

    def prepare(self, dataset: Dataset, methods: Sequence[Method], console: Console) -> dict[Path, str]:
        """Prepare both. Returns the pictures that either cannot read."""
        others = [method for method in methods if method.name != SIFT]
        return self._system.prepare(dataset, others, console) | self._sift.prepare(dataset, methods, console)

    def ranker(self, dataset: Dataset) -> Rank:
        """Return a function that ranks by the one or the other."""
        others, sift = self._system.ranker(dataset), self._sift.ranker(dataset)

        def rank(method: Method, begin: Begin) -> Searched:
            return (sift if method.name == SIFT else others)(method, begin)

        return rank
