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
    """The rankings of a method, and its cost."""

    orders: list[Ids]
    """For each query the references, best first. Rows beyond the last reference are further distractors."""
    milliseconds: float | None = None
    """Time of a search, the median over queries; None if not measured."""
    index_bytes: float | None = None
    """Size of the index per reference; None if unknown."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Searched:
        """Collect answers."""
        return cls(
            orders=[answer.order for answer in answers],
            milliseconds=1000 * float(np.median([answer.seconds for answer in answers])),
            index_bytes=answers[0].index_bytes,
        )


Rank = Callable[[Method, Begin], Searched]
"""From a method and its progress display to its rankings."""


@dataclass(frozen=True, kw_only=True)
class About:
    """The description of a system."""

    name: str
    """Short, for a table column."""
    long_side: int
    augmentation: str = ""
    """Augmentation of the vectors that a service searches, as for `landseer augment --method`; empty for raw ones."""
    untrained: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """For the JSON: the profile, or the server and its limits."""
    notes: tuple[str, ...] = ()
    """Shown below the table: how to read its figures."""

    @property
    def title(self) -> str:
        """Name and size of pictures, for a heading."""
        augmented = f", all vectors augmented by {self.augmentation}" if self.augmentation else ""
        return f"{self.name}, {self.long_side} px{augmented}"


class System(Protocol):
    """Ranks a data set's references for its queries."""

    @property
    def about(self) -> About:
        """Its description; final once a ranker was made."""

    def prepare(self, dataset: Dataset, methods: Sequence[Method], console: Console) -> dict[Path, str]:
        """Describe or index the pictures as the methods need it.

        Returns unreadable pictures with the reason. OpsError.
        """

    def ranker(self, dataset: Dataset) -> Rank:
        """Return a function that ranks the data set, whose pictures must be prepared."""
