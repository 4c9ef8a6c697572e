"""The interface between the training loop and what it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Parameters with common settings."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    """Factor of the settings' learning rate."""
    decay: bool = True
    """Whether weight decay applies."""


class Task(Protocol):
    """A training task: one small class for each method. The loop uses only this interface."""

    @property
    def module(self) -> nn.Module:
        """Everything whose state changes in training, including the loss's weights. Saved whole in the state file."""

    @property
    def measure(self) -> str:
        """Name of the validation measure, for people."""

    def about(self) -> Mapping[str, str | int | float]:
        """Return a short identity of data, initial weights and method options. A run resumes only if it is equal.

        Also written to best.safetensors.
        """

    def groups(self) -> Sequence[Group]:
        """Return the parameters to train, each once."""

    def mine(self, epoch: int) -> Any:
        """Mine the epoch's data with the current weights, such as hard negatives; None if there is nothing to mine.

        Called once per epoch, in evaluation mode and without gradients. Returns plain data and tensors, which are saved
        in the state file. Random choices use torch's global generator, seeded by the epoch.
        """

    def plan(self, epoch: int, mined: Any) -> Sequence[Any]:
        """Return the batches of an epoch, such as lists of rows. Deterministic in its arguments."""

    def load(self, item: Any, draw: np.random.Generator) -> Any:
        """Load one of the plan's batches. Runs in another thread, so randomness must come from `draw`."""

    def loss(self, batch: Any) -> Tensor:
        """Return the scalar loss of a loaded batch. Random choices use torch's global generator."""

    def describe(self, item: Any) -> str:
        """Describe one of the plan's batches for errors, for example by its files."""

    def validate(self) -> float:
        """Return a measure to maximise on held-out data, in evaluation mode and without gradients."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return the tensors of best.safetensors."""
