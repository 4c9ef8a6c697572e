"""What eager fp32 torch says of pixels: the reference for everything that is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.inference.contracts import graphs
from landseer.export.build import Wanted, build
from landseer.export.models.trunks import DEFAULT_BACKBONE
from landseer.export.parity import eager

Arrays = dict[str, NDArray[Any]]


class Eager:
    """The modules that were exported, run by torch. Answers are kept: torch takes most of a second for a picture."""

    def __init__(self) -> None:
        self._networks = build(Wanted(backbone=DEFAULT_BACKBONE))
        self.profile = self._networks.profile
        self._graphs = graphs(self.profile.sizes)
        self._known: dict[tuple[bytes, tuple[int, ...]], Arrays] = {}

    def module(self, graph: str) -> torch.nn.Module:
        """Return the module that was exported as `graph`."""
        return self._networks.modules[graph]

    def backbone(self, pixels: NDArray[np.uint8]) -> Arrays:
        """Return the outputs of `backbone` for pixels [B, H, W, 3]."""
        key = (pixels.tobytes(), pixels.shape)
        if key not in self._known:
            self._known[key] = self._run("backbone", {"image": pixels})
        return self._known[key]

    def full(self, pixels: NDArray[np.uint8]) -> Arrays:
        """Return the outputs of `describe_full`: of the backbone, and of detector and cluster after it."""
        out = self.backbone(pixels)
        return {**out, **self._run("detector", out), **self._run("cluster", out)}

    def _run(self, graph: str, tensors: Arrays) -> Arrays:
        contract = self._graphs[graph]
        inputs = {tensor.name: np.ascontiguousarray(tensors[tensor.name]) for tensor in contract.inputs}
        threads = torch.get_num_threads()
        # Two threads on a machine whose cores are busy wait for each other: measured ten times slower than one.
        torch.set_num_threads(1)
        try:
            return eager(self._networks.modules[graph], contract, inputs)
        finally:
            torch.set_num_threads(threads)
