"""Box operations that export to ONNX: anchors, offsets, clipping and non-maximum suppression.

A box is x0, y0, x1, y1 in pixels, its sides x1 - x0 and y1 - y0. Conversion, areas and suppression are
torchvision.ops'. The rest is ours: torchvision's box coder is in a private module, its clipping takes one size for all
boxes, and its anchors are rounded to whole pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, nms  # Here: the exporter knows only operators imported before it starts.

ABSENT = -1.0
"""Score of padding and of excluded boxes; real scores are probabilities."""
FINEST = 1024.0
"""Suppression rounds coordinates to 1/1024 pixel."""
SPAN = 2048.0
"""Offset that separates pictures in suppression: a power of two above the longest side."""
LARGEST_GROWTH = math.log(1000.0 / 16.0)
"""Maximum log growth of an anchor, as in Faster R-CNN, so that exp stays finite."""

Weights = tuple[float, float, float, float]
PLAIN: Weights = (1.0, 1.0, 1.0, 1.0)


class RankedBoxes(NamedTuple):
    """Boxes by descending score, zero-padded."""

    boxes: Tensor
    """[B, R, 4]"""
    scores: Tensor
    """[B, R]"""
    number: Tensor
    """int32 [B, 1]"""


def anchor_shapes(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Return boxes around the origin for each size (side of a square of equal area) and height-to-width ratio. [A, 4].

    Ren et al. 2015, section 3.1.1, but never rounded to whole pixels.
    """
    shapes = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in ratios for size in sizes]
    return torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in shapes])


def grid(feature_map: Tensor) -> Tensor:
    """Return column and row of each cell of a map [B, C, h, w], as floats [h*w, 2], row by row.

    By expansion, because the remainder of a range by a dynamic width does not export.
    """
    h, w = feature_map.shape[-2:]
    row = torch.arange(h, dtype=torch.float32, device=feature_map.device)[:, None].expand(h, w)
    column = torch.arange(w, dtype=torch.float32, device=feature_map.device)[None, :].expand(h, w)
    return torch.stack([column, row], dim=-1).flatten(0, 1)


def anchors_at(points: Tensor, shapes: Tensor) -> Tensor:
    """Centre every shape on every point. points: x, y [..., L, 2], shapes: [A, 4] → [..., L*A, 4], grouped by point."""
    corners = torch.cat([points, points], dim=-1)
    return (corners[..., :, None, :] + shapes).flatten(-3, -2)


def encode(boxes: Tensor, anchors: Tensor, weights: Weights = PLAIN) -> Tensor:
    """Encode boxes relative to anchors: centre offsets in anchor sides, and log growth. The inverse of `decode`.

    boxes, anchors: [..., 4], sides above 0 → [..., 4]. Ren et al. 2015, eq. 2, times the weights.
    """
    centre, side = _centre_and_side(boxes)
    from_centre, from_side = _centre_and_side(anchors)
    offsets = torch.cat([(centre - from_centre) / from_side, torch.log(side / from_side)], dim=-1)
    return offsets * torch.tensor(weights, dtype=boxes.dtype, device=boxes.device)


def decode(offsets: Tensor, anchors: Tensor, weights: Weights = PLAIN) -> Tensor:
    """Decode offsets to boxes. offsets, anchors: [..., 4] → boxes [..., 4]. The inverse of `encode`."""
    offsets = offsets / torch.tensor(weights, dtype=offsets.dtype, device=offsets.device)
    from_centre, from_side = _centre_and_side(anchors)
    centre = offsets[..., :2] * from_side + from_centre
    side = torch.exp(offsets[..., 2:].clamp(max=LARGEST_GROWTH)) * from_side
    boxes: Tensor = box_convert(torch.cat([centre, side], dim=-1), "cxcywh", "xyxy")
    return boxes


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    found = box_convert(boxes, "xyxy", "cxcywh")
    return found[..., :2], found[..., 2:]


def clip(boxes: Tensor, image_size: Tensor) -> Tensor:
    """Clip boxes [B, N, 4] to their pictures. image_size: height and width, [B, 2] or [1, 2]."""
    limit = image_size.to(boxes.dtype).flip(-1).repeat(1, 2)[:, None, :]  # width, height, width, height
    return torch.minimum(boxes.clamp(min=0.0), limit)


def at_least(boxes: Tensor, scores: Tensor, side: float) -> Tensor:
    """Set the scores [B, N] of boxes [B, N, 4] with a side below `side` pixels to ABSENT."""
    lengths = boxes[..., 2:] - boxes[..., :2]
    return torch.where((lengths >= side).all(dim=-1), scores, ABSENT)


def leading(values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest `count` of values [B, N], their indices, and whether each is real: three [B, count].

    Padded *before* TopK: in ONNX a K above the length is an error. Values must be above -1e30.
    """
    top, index = F.pad(values, (0, count), value=-1e30).topk(count, dim=1)
    return top, index.clamp(max=values.shape[1] - 1), top > -1e30


def rows(values: Tensor, index: Tensor) -> Tensor:
    """Take rows. values: [B, N, C], index: int64 [B, K] → [B, K, C]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def unsuppressed(boxes: Tensor, scores: Tensor, overlap: float, *, groups: int = 1) -> Tensor:
    """Keep the boxes whose IoU with every better kept box is at most `overlap`: non-maximum suppression.

    boxes: [B, N, 4] within 0 .. SPAN, scores: [B, N] → bool [B, N], False where a score is ABSENT. Boxes suppress each
    other only within a group; groups are consecutive and of equal length.

    One NonMaxSuppression for all: pictures are shifted apart along x, groups along y. Coordinates are first rounded to
    1/1024 pixel, so that shifting up to 8 pictures is exact in fp32, and a batch gives what single pictures give.
    """
    present = scores >= 0
    still = (boxes * FINEST).round() / FINEST * present[..., None]  # An empty box suppresses nothing.
    apart = still.reshape(still.shape[0], groups, -1, 4)  # [B, G, N/G, 4]
    ones = torch.ones_like(apart[:, :, :1, :1])  # [B, G, 1, 1]
    place = torch.cat([ones.cumsum(dim=0) - 1, ones.cumsum(dim=1) - 1], dim=-1).repeat(1, 1, 1, 2) * SPAN
    kept: Tensor = nms((apart + place).flatten(0, 2), scores.flatten(), overlap)
    mask = torch.zeros_like(scores).flatten().scatter(0, kept, torch.ones_like(kept, dtype=scores.dtype))
    return (mask.reshape(scores.shape) > 0) & present


def ranked(boxes: Tensor, scores: Tensor, keep: Tensor, count: int) -> RankedBoxes:
    """Return the best `count` of the boxes to keep. boxes: [B, N, 4], scores: [B, N], keep: bool [B, N]."""
    top, index, _ = leading(torch.where(keep, scores, ABSENT), count)
    valid = (top >= 0).to(boxes.dtype)
    return RankedBoxes(
        boxes=rows(boxes, index) * valid[..., None],
        scores=top.clamp(min=0.0),
        number=valid.sum(dim=1, keepdim=True).to(torch.int32),
    )
