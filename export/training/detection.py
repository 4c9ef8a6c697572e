"""Losses of region proposals and detectors, on pictures with boxes.

A loss takes a batch of `Annotated` pictures and returns a scalar; its `parameters` are those to optimise. Random
choices come from torch's global generator, like torchvision's, so a loop that seeds it and stores its state is
deterministic and can resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.datasets.photograph import Box, Photograph
from landseer.export.models.box_ops import encode
from landseer.export.models.landmark_detectors import LandmarkDetector
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.trunk import Trunk
from landseer.export.training.pasted import Annotated

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
TrunkRun = Callable[[NDArray[np.uint8]], NDArray[np.float16]]
"""Compute a map [1, C, h, w] from pixels [1, H, W, 3]; see `trunk_views.trunk_runner`."""


class DetectionLoss(Protocol):
    """Interface of a detector's loss."""

    def __call__(self, batch: Sequence[Annotated]) -> Tensor:
        """Return the mean loss, a scalar."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters to train."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Selection of anchors that region proposals learn from. Ren et al. 2015, section 3.1.2."""

    positive_above: float = 0.7
    negative_below: float = 0.3
    anchors: int = 256
    """Anchors per picture, at most half of them positive."""


class ProposalLoss:
    """The loss of region proposals on a frozen trunk.

    Ren et al. 2015, eq. 1: binary cross-entropy of objectness over the sampled anchors, divided by their number, plus
    `balance` times smooth L1 of the offsets over the positive ones, divided by the number of cells. (torchvision
    divides both by the number sampled; with our small maps boxes would then hardly be learned.) The L1 is smooth
    below 1/9 as in the authors' code; the paper has 1.
    """

    def __init__(
        self,
        *,
        trunk: Trunk,
        rpn: RegionProposals,
        sampling: Sampling | None = None,
        balance: float = 10.0,
        run: TrunkRun | None = None,
    ) -> None:
        """run: runs the trunk by something faster than torch."""
        self.trunk, self.rpn, self.sampling, self.balance = trunk.eval(), rpn, sampling or Sampling(), balance
        self._run = run

    def __call__(self, batch: Sequence[Annotated]) -> Tensor:
        """Return the mean over the pictures, whose sizes may differ."""
        return torch.stack([self._one(picture) for picture in _checked(batch)]).mean()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the proposals' weights, not the trunk's."""
        return self.rpn.parameters()

    def _one(self, picture: Annotated) -> Tensor:
        device = self.rpn.shapes.device
        feature_map = self._map(picture, device)
        logits, offsets = self.rpn.predict(feature_map)
        size = torch.tensor([picture.pixels.shape[:2]], dtype=torch.int32, device=device)
        anchors, boxes = self.rpn.anchors(feature_map, size)[0], torch.from_numpy(picture.boxes).to(device)
        labels, matched = matches(anchors, boxes, self.sampling)
        nearest = boxes[matched] if len(boxes) else anchors
        objectness, regression = proposal_losses(logits[0], offsets[0], anchors, nearest, labels)
        loss: Tensor = objectness / (labels != IGNORED).sum() + self.balance * regression / feature_map[0, 0].numel()
        return loss

    @torch.no_grad()
    def _map(self, picture: Annotated, device: torch.device) -> Tensor:
        """Return the trunk's map of a picture. [1, C, h, w]"""
        if self._run is not None:
            return torch.from_numpy(self._run(picture.pixels[None])).to(device).float()
        pixels = torch.from_numpy(picture.pixels).to(device).permute(2, 0, 1)[None].float()
        feature_map: Tensor = self.trunk(pixels)
        return feature_map


def matches(anchors: Tensor, boxes: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Label anchors [L, 4] by boxes [n, 4], and sample. → POSITIVE, NEGATIVE or IGNORED [L], box index [L].

    Positive: IoU with a box of at least `positive_above`, or the highest of all anchors for that box. Negative: IoU
    with every box below `negative_below`. The first rule wins. Ren et al. 2015, section 3.1.2.
    """
    if not len(boxes):
        labels = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        return _sampled(labels, sampling), torch.zeros_like(labels)
    overlaps = box_iou(anchors, boxes)  # [L, n]
    best, matched = overlaps.max(dim=1)
    labels = torch.full_like(matched, IGNORED)
    labels[best < sampling.negative_below] = NEGATIVE
    top = overlaps.amax(dim=0)  # [n]
    closest = (overlaps == top) & (top > 0)
    labels[(best >= sampling.positive_above) | closest.any(dim=1)] = POSITIVE
    return _sampled(labels, sampling), matched


def _sampled(labels: Tensor, sampling: Sampling) -> Tensor:
    """Set all but a random sample to IGNORED: at most half positives, filled up with negatives."""
    order = torch.randperm(len(labels), device="cpu").to(labels.device)
    positive = order[labels[order] == POSITIVE][: sampling.anchors // 2]
    negative = order[labels[order] == NEGATIVE][: sampling.anchors - len(positive)]
    chosen = torch.cat([positive, negative])
    return torch.full_like(labels, IGNORED).index_copy(0, chosen, labels[chosen])


def proposal_losses(
    logits: Tensor, offsets: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy of objectness and the smooth L1 of offsets over one picture's anchors.

    logits, labels: [L]; offsets, anchors, boxes (one for each anchor): [L, 4].
    """
    used, positive = labels != IGNORED, labels == POSITIVE
    objectness = F.binary_cross_entropy_with_logits(logits[used], labels[used].to(logits.dtype), reduction="sum")
    wanted = encode(boxes[positive], anchors[positive])
    return objectness, F.smooth_l1_loss(offsets[positive], wanted, beta=1 / 9, reduction="sum")


class LandmarkLoss:
    """The loss of a landmark detector: the sum of torchvision's losses.

    A call sets the network to training mode; `detector.eval()` resets it.
    """

    def __init__(self, detector: LandmarkDetector) -> None:
        self.detector = detector

    def __call__(self, batch: Sequence[Annotated]) -> Tensor:
        """Return the sum of torchvision's losses, each a mean over the batch."""
        network: Any = self.detector.network.train()
        device = next(network.parameters()).device
        pixels = [torch.from_numpy(p.pixels).to(device).permute(2, 0, 1).float() / 255.0 for p in _checked(batch)]
        losses = network(pixels, [_target(torch.from_numpy(picture.boxes).to(device)) for picture in batch])
        return torch.stack(list(losses.values())).sum()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights that torchvision leaves trainable."""
        return (p for p in self.detector.network.parameters() if p.requires_grad)


def _target(boxes: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64, device=boxes.device)}


def _checked(batch: Sequence[Annotated]) -> Sequence[Annotated]:
    """Return the batch. ValueError if it is empty, or a box is empty or exceeds its picture."""
    if not batch:
        raise ValueError("got an empty batch; expected at least one picture")
    for number, picture in enumerate(batch):
        height, width = picture.pixels.shape[:2]
        low, high = picture.boxes[:, :2], picture.boxes[:, 2:]
        if not ((low >= 0) & (low < high) & (high <= (width, height))).all():
            raise ValueError(
                f"picture {number} of the batch, {width} x {height}, has boxes {picture.boxes.tolist()}; expected "
                f"0 ≤ x0 < x1 ≤ width and 0 ≤ y0 < y1 ≤ height, in pixels"
            )
    return batch


def annotated(photograph: Photograph, profile: Profile) -> Annotated:
    """Read a photograph at the served size, and its boxes in pixels. InvalidInput if it cannot be decoded."""
    pixels = prepare(photograph.path.read_bytes(), profile=profile).pixels
    height, width = pixels.shape[:2]
    sides = [_corners(box) for box in photograph.boxes]
    scale = np.array([width, height, width, height], np.float32)
    return Annotated(pixels=pixels, boxes=np.array(sides, np.float32).reshape(-1, 4) * scale)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1
