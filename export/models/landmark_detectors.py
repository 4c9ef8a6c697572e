"""Detect-to-Retrieve's two landmark detectors (Teichmann et al. 2019, section 3.1): from pixels to scored boxes.

The paper has an SSD on MobileNet-V2 and a Faster R-CNN on ResNet-50, with one class. Both networks here are
torchvision's and keep its weight names, so that its files load and its training step works. The first is SSDLite on
MobileNet-V3, torchvision's only single-shot network on a MobileNet; the second has a feature pyramid, like
torchvision's. The post-processing is ours, because torchvision's has data-dependent shapes and takes pictures one by
one. The boxes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.backbone import spatial_size
from landseer.export.models.box_ops import (
    ABSENT,
    RankedBoxes,
    anchors_at,
    at_least,
    clip,
    decode,
    grid,
    leading,
    ranked,
    rows,
    unsuppressed,
)
from landseer.export.models.detector import Detection
from landseer.export.models.state_dicts import fill, read_state_dict
from landseer.export.models.torch_file import WeightsError

CLASSES = 2
"""Background and landmark, or whatever object the boxes show."""
LEAST_SCORE = 0.1
"""Minimum score of a box in Detect-to-Retrieve."""
SHORTER, LONGER = 480, 640
"""Faster R-CNN resizes the shorter side to the first, in pixels, unless the longer one would exceed the second.
torchvision has 800 and 1333, but pictures have a long side of 640, and enlarging them only costs time."""
PADDING = 32
"""Faster R-CNN's pictures are padded to multiples of this, the stride of its second coarsest map."""
POOLED_STRIDES = (4, 8, 16, 32)
"""Strides of the maps that regions are pooled from."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4.0
"""A region of this side is pooled from stride 2^4. Lin et al. 2017 (feature pyramids), eq. 1."""

OF_CLASSES = ("classification_head.", "roi_heads.box_predictor.", "fc.")
"""Layers that depend on the classes; they are skipped when a file has other classes."""


class SingleShot(nn.Module):
    """torchvision's SSD with one class. Every picture is resized to one size, whatever its aspect ratio."""

    anchors: Tensor

    def __init__(self, *, network: Any, sizes: Sizes) -> None:
        super().__init__()
        self.network, self.sizes = network, sizes
        # A fixed size has fixed anchors.
        self.register_buffer("anchors", _default_boxes(network), persistent=False)

    def forward(self, image: Tensor) -> Detection:
        """Detect. image: uint8 [B, H, W, 3] → `Detection`."""
        n = self.network
        side_y, side_x = n.transform.fixed_size[::-1]
        pixels = F.interpolate(_normalised(image, n), size=(side_y, side_x), mode="bilinear", align_corners=False)
        out = n.head(list(n.backbone(pixels).values()))
        seen = torch.tensor([[side_y, side_x]], dtype=torch.int32, device=image.device)
        boxes = clip(decode(out["bbox_regression"], self.anchors, n.box_coder.weights), seen)
        scores = _above(F.softmax(out["cls_logits"], dim=-1)[..., 1], n.score_thresh)
        top, index, real = leading(scores, n.topk_candidates)
        boxes, scores = rows(boxes, index), torch.where(real, top, ABSENT)
        found = ranked(boxes, scores, unsuppressed(boxes, scores, n.nms_thresh), self.sizes.boxes)
        return _in_pixels(found, image, seen)


class TwoStage(nn.Module):
    """torchvision's Faster R-CNN with a feature pyramid and one class."""

    def __init__(self, *, network: Any, sizes: Sizes) -> None:
        super().__init__()
        self.network, self.sizes = network, sizes
        for level, shapes in enumerate(network.rpn.anchor_generator.cell_anchors):
            self.register_buffer(f"shapes{level}", shapes.clone(), persistent=False)

    def forward(self, image: Tensor) -> Detection:
        """Detect. image: uint8 [B, H, W, 3] → `Detection`."""
        pixels = self.resized(_normalised(image, self.network))
        seen = spatial_size(pixels.permute(0, 2, 3, 1))
        padded = F.pad(pixels, (0, -pixels.shape[3] % PADDING, 0, -pixels.shape[2] % PADDING))
        maps = self.network.backbone(padded)
        proposals = self.proposals(list(maps.values()), padded, seen)
        return _in_pixels(self.classified(maps, proposals, seen), image, seen)

    def resized(self, pixels: Tensor) -> Tensor:
        """Resize to the network's shorter side, or less if the longer side would exceed its limit. [B, 3, H, W]."""
        transform, (h, w) = self.network.transform, pixels.shape[2:]
        shorter, longer = transform.min_size[-1], transform.max_size
        sides = [
            torch.sym_min(side * shorter // torch.sym_min(h, w), side * longer // torch.sym_max(h, w))
            for side in (h, w)
        ]
        return F.interpolate(pixels, size=sides, mode="bilinear", align_corners=False)

    def proposals(self, maps: list[Tensor], padded: Tensor, seen: Tensor) -> RankedBoxes:
        """Propose regions: the best of each map, with suppression within each map. maps: [B, C, h, w] each."""
        rpn = self.network.rpn
        logits, offsets = rpn.head(maps)
        levels = [self._level(*level, padded, seen) for level in zip(range(len(maps)), logits, offsets, strict=True)]
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        keep = unsuppressed(boxes, scores, rpn.nms_thresh, groups=len(maps))
        return ranked(boxes, scores, keep, rpn.post_nms_top_n())

    def _level(
        self, level: int, logits: Tensor, offsets: Tensor, padded: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the candidate boxes and scores of one map. logits: [B, A, h, w], offsets: [B, A*4, h, w]."""
        rpn = self.network.rpn
        # As in torchvision, strides are whole pixels and the first anchor is centred on the corner.
        h, w = logits.shape[2:]
        stride = torch.tensor([padded.shape[3] // w, padded.shape[2] // h], dtype=torch.float32, device=padded.device)
        anchors = anchors_at(grid(logits) * stride, getattr(self, f"shapes{level}"))  # [h*w*A, 4]
        top, index, real = leading(logits.permute(0, 2, 3, 1).flatten(1), rpn.pre_nms_top_n())
        moves = offsets.permute(0, 2, 3, 1)
        boxes = clip(decode(rows(moves.reshape(moves.shape[0], -1, 4), index), anchors[index]), seen)
        return boxes, at_least(boxes, torch.where(real, torch.sigmoid(top), ABSENT), rpn.min_size)

    def classified(self, maps: Mapping[str, Tensor], proposals: RankedBoxes, seen: Tensor) -> RankedBoxes:
        """Score and refine the proposals. maps: by name, proposals: R of them → the best M."""
        heads = self.network.roi_heads
        pooled = pyramid_pooled([maps[name] for name in heads.box_roi_pool.featmap_names], proposals.boxes)
        logits, offsets = heads.box_predictor(heads.box_head(pooled))
        batch, count = proposals.scores.shape
        scores = F.softmax(logits, dim=-1)[:, 1].reshape(batch, count)
        offsets = offsets[:, 4:].reshape(batch, count, 4)
        boxes = clip(decode(offsets, proposals.boxes, heads.box_coder.weights), seen)
        real = torch.arange(count, device=scores.device)[None] < proposals.number
        scores = at_least(boxes, torch.where(real, _above(scores, heads.score_thresh), ABSENT), 0.01)
        return ranked(boxes, scores, unsuppressed(boxes, scores, heads.nms_thresh), self.sizes.boxes)


def pyramid_pooled(maps: list[Tensor], boxes: Tensor, *, side: int = 7, samples: int = 2) -> Tensor:
    """Pool each box from the map for its size. maps: [B, C, h, w], boxes: [B, R, 4] → [B*R, C, side, side].

    Lin et al. 2017, eq. 1. Every box is pooled from every map, then one result is selected: this costs little beside
    the trunk, and engines fail on a map without boxes.
    """
    from torchvision.ops import box_area, roi_align

    row = (torch.ones_like(boxes[:, :, :1]).cumsum(dim=0) - 1).flatten(0, 1)  # [B*R, 1]
    regions = torch.cat([row, boxes.flatten(0, 1)], dim=1)
    level = torch.floor(CANONICAL_LEVEL + torch.log2(box_area(boxes).clamp(min=1e-9).sqrt() / CANONICAL_SIDE) + 1e-6)
    level = level.clamp(min=2.0, max=5.0).flatten()[:, None, None, None]
    pooled = [roi_align(m, regions, (side, side), 1.0 / s, samples) for m, s in zip(maps, POOLED_STRIDES, strict=True)]
    total = torch.zeros_like(pooled[0])
    for number, one in enumerate(pooled):
        total = torch.where(level == number + 2.0, one, total)
    return total


def _normalised(image: Tensor, network: Any) -> Tensor:
    """Normalise uint8 [B, H, W, 3] for the network. → [B, 3, H, W]."""
    mean = torch.tensor(network.transform.image_mean, device=image.device)[:, None, None]
    std = torch.tensor(network.transform.image_std, device=image.device)[:, None, None]
    return (image.permute(0, 3, 1, 2).float() / 255.0 - mean) / std


def _above(scores: Tensor, least: float) -> Tensor:
    return torch.where(scores > least, scores, ABSENT)


def _in_pixels(found: RankedBoxes, image: Tensor, seen: Tensor) -> Detection:
    """Scale boxes from the network's input size, [B, 2] or [1, 2], to the picture's size."""
    ratio = (spatial_size(image).to(torch.float32) / seen).flip(1).repeat(1, 2)  # [B, 4]
    return Detection(boxes=found.boxes * ratio[:, None, :], box_scores=found.scores, box_count=found.number)


@torch.no_grad()
def _default_boxes(network: Any) -> Tensor:
    """Return SSD's anchors, in pixels of its input size. [L, 4]."""
    from torchvision.models.detection.image_list import ImageList

    width, height = network.transform.fixed_size
    training = network.training
    blank = torch.zeros(1, 3, height, width)
    maps = list(network.eval().backbone(blank).values())
    network.train(training)
    anchors: Tensor = network.anchor_generator(ImageList(blank, [(height, width)]), maps)[0]
    return anchors


def ssdlite(weights: Path | None, *, seed: int, sizes: Sizes) -> SingleShot:
    """SSDLite on MobileNet-V3 at 320 x 320 pixels. weights: torchvision's, two classes; None: random by seed."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    def build() -> Any:
        return ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES, score_thresh=LEAST_SCORE
        )

    return SingleShot(network=_filled(build, weights, seed), sizes=sizes).eval()


def faster_rcnn(
    weights: Path | None, *, seed: int, sizes: Sizes, shorter: int = SHORTER, longer: int = LONGER
) -> TwoStage:
    """Faster R-CNN on ResNet-50 with a feature pyramid. weights: torchvision's, two classes; None: random by seed.

    BatchNorm is frozen, as torchvision does for a trained trunk: batches of a few pictures have poor statistics. Each
    map gives 500 candidates, and 128 proposals enter the second stage; torchvision has 1,000 of each. The contract
    returns 8 boxes.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    def build() -> Any:
        trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
        return FasterRCNN(
            trunk,
            num_classes=CLASSES,
            min_size=shorter,
            max_size=longer,
            rpn_pre_nms_top_n_test=500,
            rpn_post_nms_top_n_test=128,
            box_score_thresh=LEAST_SCORE,
        )

    return TwoStage(network=_filled(build, weights, seed), sizes=sizes).eval()


LandmarkDetector = SingleShot | TwoStage

LANDMARK_DETECTORS: dict[str, Callable[..., LandmarkDetector]] = {"ssdlite": ssdlite, "faster_rcnn": faster_rcnn}
"""By name: (weights, *, seed, sizes) → the detector, in evaluation mode. WeightsError if the weights do not fit."""


def _filled(build: Callable[[], Any], weights: Path | None, seed: int) -> Any:
    """Build a network with weights from a file, or random ones by seed, leaving torch's global generator unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    if weights is not None:
        fill(network, read_state_dict(weights), weights)
    return network


def start_from(detector: LandmarkDetector, weights: Path) -> int:
    """Load the weights of a detector for other classes, or of its trunk alone, before training on boxes.

    weights: a state dict of the same torchvision detector with any number of classes, such as the published one for
    COCO, or of torchvision's ResNet-50 (variant v1.5). Layers that depend on the classes stay random. Returns the
    number of loaded tensors. WeightsError if other weights in the file do not fit.
    """
    state, own = read_state_dict(weights), detector.network.state_dict()
    prefix = "" if any(name.startswith("backbone.") for name in state) else "backbone.body."
    fitting = {prefix + k: v for k, v in state.items() if _same_shape(own.get(prefix + k), v)}
    left = [k for k in state if prefix + k not in fitting and not _may_be_left(k)]
    if left or not fitting:
        raise WeightsError(
            f"{weights} does not fit {type(detector.network).__name__}: {len(left)} of its weights do not fit (such "
            f"as {left[:1]}); expected torchvision's own detector with any classes, or its ResNet-50"
        )
    detector.network.load_state_dict(fitting, strict=False)
    return len(fitting)


def _same_shape(own: Tensor | None, given: Tensor) -> bool:
    return own is not None and own.shape == given.shape


def _may_be_left(name: str) -> bool:
    return name.endswith("num_batches_tracked") or any(part in name for part in OF_CLASSES)
