"""Figures that were measured before, so that an interrupted report resumes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from landseer.export.models.lattqe import ExpansionNetwork
from landseer.ops.research.searched import Figures


class Kept:
    """A folder of figures. What they were measured of is their key, so nothing outdated is ever found."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def number(self, key: str, measure: Callable[[], float]) -> float:
        """Return the number of a key; measure and keep it if there is none."""

        def figures() -> Figures:
            return Figures(aps=np.array([measure()]), first=np.zeros(1))

        return float(self.figures(key, figures).aps[0])

    def figures(self, key: str, measure: Callable[[], Figures]) -> Figures:
        """Return the figures of a key; measure and keep them if there are none."""
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if path.exists():
            with np.load(path) as kept:
                return Figures(aps=kept["aps"], first=kept["first"])
        found = measure()
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{os.getpid()}-{path.name}")
        np.savez(staged, aps=found.aps, first=found.first)
        staged.replace(path)
        return found


@torch.no_grad()
def digest(network: ExpansionNetwork) -> str:
    """Identify a network by its weights, and by what it makes of some neighbours."""
    found = hashlib.sha256(type(network).__name__.encode())
    for name, value in network.state_dict().items():
        found.update(name.encode() + value.detach().numpy().tobytes())
    sizes = network.shape["sizes"]
    tokens = torch.randn(1, 1 + sizes.neighbours, sizes.channels, generator=torch.Generator().manual_seed(0))
    weights, logits = network.weights(F.normalize(tokens, dim=-1), torch.ones(1, sizes.neighbours, dtype=torch.bool))
    found.update(weights.numpy().tobytes() + logits.numpy().tobytes())
    return found.hexdigest()
