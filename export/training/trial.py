"""What a training will take: a few of its steps, on its own data, of which nothing is kept."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What some steps took."""

    steps: int
    """Timed steps. One before them is not timed: it allocates memory and compiles."""
    seconds: float
    """Mean of these."""
    of_epoch: int
    """Steps of an epoch."""
    epochs: int
    mining: float
    """Seconds to mine, before each epoch."""
    peak: int
    """Most bytes of memory: of the GPU if it trains on one, else of the process."""
    checkpoint: int
    """Bytes of a checkpoint, and as many again while the next is written."""

    @property
    def total(self) -> float:
        """Seconds that all epochs take, without validation."""
        return self.epochs * (self.of_epoch * self.seconds + self.mining)


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that work takes, on a GPU too, where calls return before they are done."""
    began = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - began


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that was used so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tensor_bytes(state: Any) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(tensor_bytes, state.values()))
    return sum(map(tensor_bytes, state)) if isinstance(state, list | tuple) else 0
