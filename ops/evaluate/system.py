"""What is evaluated: models in this process, or a running service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.database import Begin
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.methods import Answer, Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """What a method found for every query, and what it costs."""

    orders: list[Ids]
    """For each query the references, best first. Rows behind the last one are distractors that nobody named."""
    milliseconds: float | None = None
    """Of a search, the median over queries; None where it was not measured."""
    index_bytes: float | None = None
    """Of a reference in what is searched; None where that is not known."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Searched:
        """Return what was measured with each answer."""
        return cls(
            orders=[answer.order for answer in answers],
            milliseconds=1000 * float(np.median([answer.seconds for answer in answers])),
            index_bytes=answers[0].index_bytes,
        )


Rank = Callable[[Method, Begin], Searched]
"""From a method, and what shows how far it is, to what it finds."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What is told of a system."""

    name: str
    """Short, for a column."""
    long_side: int
    augmentation: str = ""
    """Of the vectors that a service searches, as `landseer augment --method` names it; empty for raw ones."""
    untrained: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """For programs: the profile, or the server and its limits."""
    notes: tuple[str, ...] = ()
    """For people, below the table: how its figures are to be read."""

    @property
    def title(self) -> str:
        """What it is, for a heading."""
        augmented = f", all vectors augmented by {self.augmentation}" if self.augmentation else ""
        return f"{self.name}, {self.long_side} px{augmented}"


class System(Protocol):
    """Ranks a data set's references for its queries."""

    @property
    def about(self) -> About:
        """What it is, once a ranker was made."""

    def prepare(self, dataset: Dataset, methods: Sequence[Method], console: Console) -> dict[Path, str]:
        """Describe or index the pictures, as far as the methods need it.

        Returns those that cannot be read, with the reason. OpsError.
        """

    def ranker(self, dataset: Dataset) -> Rank:
        """Return what ranks the data set, all of whose pictures were prepared."""
