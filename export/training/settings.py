"""Settings of the training loop."""

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
    """Settings that decide the result, besides the task. ValueError for an invalid value."""

    epochs: int
    learning_rate: float
    """Learning rate of groups with rate 1, after warm-up."""
    optimiser: Optimiser = "sgd"
    momentum: float = 0.9
    """For SGD only."""
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    """Half a cosine to 0; times `decay` each epoch; or constant."""
    decay: float = 0.99
    warm_up: int = 0
    """Epochs in which the learning rate rises linearly from 0."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one optimiser step."""
    clip: float | None = None
    """Maximum gradient norm of a step."""
    bf16: bool = False
    """Compute in bfloat16 where torch considers it safe; weights and updates stay in float32."""
    device: Device = "auto"
    seed: int = 0
    log_every: int = 10
    """Steps per row of the curves."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 for one per epoch. Does not affect the result."""

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
        """Return the learning rate factor at a fractional epoch: 0.5 is the middle of the first."""
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
