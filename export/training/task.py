"""What a training loop trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Parameters that are trained alike."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    """Their learning rate, of the settings'."""
    decay: bool = True
    """Whether weight decay is for them."""


class Task(Protocol):
    """What is trained. A small class of its own for each method; the loop knows no more of it than this."""

    @property
    def module(self) -> nn.Module:
        """All whose state changes in training, the loss's own weights too. It goes into the checkpoint whole."""

    @property
    def measure(self) -> str:
        """What `validate` measures, for people."""

    def about(self) -> Mapping[str, str | int | float]:
        """Return data, weights at the start and choices of the method, short: a run goes on only if they are equal.

        They are also told in best.safetensors.
        """

    def groups(self) -> Sequence[Group]:
        """Return the parameters to train, each once."""

    def mine(self, epoch: int) -> Any:
        """Look for what the epoch is made of with the weights as they are, such as hard negatives; None if nothing is.

        Called once an epoch, in evaluation mode and without gradients. Plain data and tensors: it is kept in the
        checkpoint. Random choices from torch's own generator, which is seeded by the epoch.
        """

    def plan(self, epoch: int, mined: Any) -> Sequence[Any]:
        """Return the batches of an epoch, such as lists of rows: always the same for the same arguments."""

    def load(self, item: Any, draw: np.random.Generator) -> Any:
        """Make one of the plan's batches ready. Runs in another thread, so it takes chance from `draw` alone."""

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of what `load` returned, a scalar. Random choices from torch's own generator."""

    def describe(self, item: Any) -> str:
        """Name one of the plan's batches in an error, such as by its files."""

    def validate(self) -> float:
        """Measure what should become high, in evaluation mode and without gradients, on nothing that is trained on."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return what best.safetensors gets."""
