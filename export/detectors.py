"""Detectors behind one contract. To add one, write a function and add a line to `DETECTORS` here and to
`DETECTOR_INPUTS` in `ensemble/inference/contracts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.examples import photos
from landseer.export.models.detector import AttentionRegions
from landseer.export.models.landmark_detectors import LANDMARK_DETECTORS, LandmarkDetector
from landseer.export.models.rpn import ProposalDetector, RegionProposals
from landseer.export.models.state_dicts import fill, read_weights
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Trunk

SEED = 0
"""Seed for the weights of an untrained detector."""


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector in evaluation mode, and whether it is untrained."""

    module: nn.Module
    untrained: bool = False


def attention(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """CiDeR's: boxes around the backbone's attention. It has no weights of its own."""
    if weights is not None:
        raise WeightsError(
            f"got {weights}, but the detector attention has no weights: name their detector with --detector, one of "
            f"{', '.join(kind for kind in DETECTORS if kind != 'attention')}"
        )
    return Detector(module=AttentionRegions(sizes=sizes, stride=trunk.stride))


def rpn(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """DIR's proposals. weights: those of the proposals alone, from `landseer train rpn` on this trunk.

    The graph contains a second copy of the trunk, so that it takes pictures like the other detectors. That costs one
    more run of the trunk when boxes are requested: in indexing and explaining, never in searching.
    """
    proposals = RegionProposals.untrained(trunk.channels, seed=SEED)
    if weights is not None:
        state = {name.removeprefix("rpn."): value for name, value in read_weights(weights).items()}
        fill(proposals, state, weights)
    module = ProposalDetector(trunk=trunk, rpn=proposals, sizes=sizes)
    return Detector(module=module.eval(), untrained=weights is None)


def ssdlite(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """Detect-to-Retrieve's fast detector, with its own trunk. weights: torchvision's format, one object class."""
    detector = LANDMARK_DETECTORS["ssdlite"](None, seed=SEED, sizes=sizes)
    if weights is None:
        awaken(detector.network)
    return _landmark(detector, weights)


def faster_rcnn(trunk: Trunk, weights: Path | None, sizes: Sizes) -> Detector:
    """Detect-to-Retrieve's accurate detector, with its own trunk. weights: torchvision's format, one object class."""
    return _landmark(LANDMARK_DETECTORS["faster_rcnn"](None, seed=SEED, sizes=sizes), weights)


DETECTORS: dict[str, Callable[[Trunk, Path | None, Sizes], Detector]] = {
    "attention": attention,
    "rpn": rpn,
    "ssdlite": ssdlite,
    "faster_rcnn": faster_rcnn,
}
"""By kind: (backbone's trunk, weights or None for seeded ones, sizes) → `Detector`. WeightsError for other weights."""


def _landmark(detector: LandmarkDetector, weights: Path | None) -> Detector:
    if weights is not None:
        fill(detector.network, read_weights(weights), weights)
    return Detector(module=detector.eval(), untrained=weights is None)


@torch.no_grad()
def awaken(network: Any) -> None:
    """Set the BatchNorm statistics of an untrained SSD from photographs.

    With torchvision's initial ones no signal reaches the output: as measured, every score of every picture is 0.5. All
    boxes then tie, and no check can tell a correct graph from a wrong one.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # Use the statistics of this one pass.
    width, height = network.transform.fixed_size
    pixels = torch.from_numpy(photos(height, width, 6)).permute(0, 3, 1, 2).float()
    network.head(list(network.train().backbone(pixels / 127.5 - 1).values()))
    network.eval()
