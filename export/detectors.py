"""The ways from a picture to boxes, behind one contract. A new one is a function and a line in `DETECTORS`, and in
`ensemble/contracts.py` a line in `DETECTOR_INPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landseer.ensemble.contracts import Sizes
from landseer.export.examples import photos
from landseer.export.models.detector import AttentionRegions
from landseer.export.models.landmark_detectors import LANDMARK_DETECTORS, LandmarkDetector
from landseer.export.models.rpn import ProposalDetector, RegionProposals
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import SUFFIX, read_tensors
from landseer.export.models.trunks import Trunk, fill, read_state_dict

SEED = 0
"""Of the weights of a detector that was not trained."""


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector in evaluation mode, and whether boxes have shaped it."""

    module: nn.Module
    untrained: bool = False


def attention(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """CiDeR's: boxes around what the backbone attends to. It has no weights of its own."""
    if weights is not None:
        raise WeightsError(
            f"got {weights}, but the detector attention has no weights: say with --detector whose they are, one of "
            f"{', '.join(kind for kind in DETECTORS if kind != 'attention')}"
        )
    return Detector(module=AttentionRegions(sizes=sizes))


def rpn(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """DIR's proposals. weights: of the proposals alone, as `landseer train rpn` writes them, trained on this trunk.

    The graph has the trunk in it once more, so that it takes pictures as the other detectors do. That costs one more
    run of the trunk where boxes are asked for: on indexing and on explaining, never on searching.
    """
    proposals = RegionProposals.untrained(trunk.channels, seed=SEED)
    if weights is not None:
        state = {name.removeprefix("rpn."): value for name, value in read_weights(weights).items()}
        fill(proposals, state, weights)
    module = ProposalDetector(trunk=trunk, rpn=proposals, sizes=sizes)
    return Detector(module=module.eval(), untrained=weights is None)


def ssdlite(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """Detect-to-Retrieve's quick one, with a trunk of its own. weights: torchvision's, of one class of object."""
    detector = LANDMARK_DETECTORS["ssdlite"](None, seed=SEED, sizes=sizes)
    if weights is None:
        awaken(detector.network)
    return _landmark(detector, weights)


def faster_rcnn(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """Detect-to-Retrieve's thorough one, with a trunk of its own. weights: torchvision's, of one class of object."""
    return _landmark(LANDMARK_DETECTORS["faster_rcnn"](None, seed=SEED, sizes=sizes), weights)


DETECTORS: dict[str, Callable[[Trunk, Path | None, Sizes], Detector]] = {
    "attention": attention,
    "rpn": rpn,
    "ssdlite": ssdlite,
    "faster_rcnn": faster_rcnn,
}
"""By kind: (the backbone's trunk, weights or None for seeded ones, sizes) → `Detector`. WeightsError if the weights do
not fit.
"""


def _landmark(detector: LandmarkDetector, weights: Path | None) -> Detector:
    if weights is not None:
        fill(detector.network, read_weights(weights), weights)
    return Detector(module=detector.eval(), untrained=weights is None)


@torch.no_grad()
def awaken(network: Any) -> None:
    """Give the BatchNorms of an SSD without training the statistics of photographs.

    With torchvision's own first ones no signal reaches the end: measured, every score of every picture is 0.5. All
    boxes tie then, and no check can tell a right graph from a wrong one.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of one pass, whole
    width, height = network.transform.fixed_size
    pixels = torch.from_numpy(photos(height, width, 6)).permute(0, 3, 1, 2).float()
    network.head(list(network.train().backbone(pixels / 127.5 - 1).values()))
    network.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, as `landseer train` writes them, or from what `torch.save` wrote.

    WeightsError if it is neither. No code in the file is run.
    """
    return read_tensors(path)[0] if path.suffix == SUFFIX else read_state_dict(path)
