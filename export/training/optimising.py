"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from landseer.export.training.errors import TrainingError
from landseer.export.training.settings import Settings
from landseer.export.training.task import Group


def optimiser(groups: Sequence[Group], settings: Settings) -> torch.optim.Optimizer:
    """Return the optimiser for some groups. The loop sets their learning rates before every step.

    TrainingError if there is nothing to train or a parameter is in two groups.
    """
    parameters = [parameter for group in groups for parameter in group.parameters]
    if not parameters or len({id(parameter) for parameter in parameters}) != len(parameters):
        raise TrainingError(f"got {len(parameters)} parameters to train; expected at least one, each in only one group")
    decay = settings.weight_decay
    listed: list[dict[str, Any]] = [
        {"params": list(group.parameters), "weight_decay": decay if group.decay else 0.0} for group in groups
    ]
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(listed, lr=settings.learning_rate)
    return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=settings.momentum)
