"""How a training is run, whatever is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "exponential", "constant"]
Device = Literal["auto", "cpu", "cuda"]

CHOICES = {
    "optimiser": ("sgd", "adamw"),
    "schedule": ("cosine", "exponential", "constant"),
    "device": ("auto", "cpu", "cuda"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the result, beside the task. ValueError for a value that makes no sense."""

    epochs: int
    learning_rate: float
    """Of groups with rate 1, at the end of the warm-up."""
    optimiser: Optimiser = "sgd"
    momentum: float = 0.9
    """Of SGD alone."""
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    """To 0 along half a cosine; by `decay` an epoch; or as it is."""
    decay: float = 0.99
    warm_up: int = 0
    """Epochs in which the learning rate rises from nothing in a straight line."""
    accumulate: int = 1
    """Batches whose gradients are averaged to one step of the optimiser."""
    clip: float | None = None
    """Greatest norm of the gradients of one step."""
    bf16: bool = False
    """Compute in bfloat16 where torch holds that safe; weights and their steps stay in float32."""
    device: Device = "auto"
    seed: int = 0
    log_every: int = 10
    """Steps to a row of the curves."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 for those at the ends of epochs alone. Changes nothing in the result."""

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("warm_up", 0), ("accumulate", 1), ("log_every", 1), ("checkpoint_every", 0)):
            _at_least(name, getattr(self, name), low)
        _at_least("seed", self.seed, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        for name in ("learning_rate", "decay") + (("clip",) if self.clip is not None else ()):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"got {name} {value}; expected a number above 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"got {name} {getattr(self, name)!r}; expected one of {', '.join(known)}")

    def rate(self, epoch: float) -> float:
        """Return the factor of the learning rate, at an epoch and its fraction: 0.5 is the middle of the first."""
        if epoch < self.warm_up:
            return epoch / self.warm_up
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "exponential":
            return float(self.decay ** math.floor(epoch))
        length = max(self.epochs - self.warm_up, 1)
        return 0.5 * (1.0 + math.cos(math.pi * min((epoch - self.warm_up) / length, 1.0)))


def _at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise ValueError(f"got {name} {value}; expected at least {low}")
