"""R-MAC: the maximum over each region, whitened and summed. Gordo, Almazán, Revaud and Larlus 2016 ("DIR").

Regions are those of a fixed grid (Tolias, Sicre and Jégou 2016) or proposals. For each: max pool → L2 → shift and
projection → L2; then their sum → L2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import MAX_SIDE, SIDE_MULTIPLE
from landseer.export.models.pooling import Projection, l2n, min_max

LEVELS = 3
OVERLAP = 0.4
SIXTIETHS = round(60 * (1 - OVERLAP))
MOST_EXTRA = 6
"""Maximum number of extra regions along the longer side."""
LOWEST = -1e30


class Regions(NamedTuple):
    """Rectangles with inclusive ends."""

    boxes: Tensor
    """x0, y0, x1, y1, int64 [R, 4] or [B, R, 4]."""
    valid: Tensor
    """Whether each exists, bool [R] or [B, R]."""


class GridRMAC(nn.Module):
    """R-MAC over the fixed grid, in pixels of the resized picture, as in the authors' code."""

    def __init__(
        self,
        channels: int,
        *,
        levels: int = LEVELS,
        projection: nn.Module | None = None,
        stride: int = SIDE_MULTIPLE,
    ) -> None:
        """projection: of each region; by default the identity, to be learned. stride: of the trunk, pixels."""
        super().__init__()
        self.levels, self.spans = levels, spans(stride)
        self.projection = projection or Projection.untrained(channels, channels, seed=0)

    def forward(self, feature_map: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Describe. feature_map: [B, C, h, w] of a picture [height, width] → unit [B, C], attention [B, h, w]."""
        found = grid(height, width, self.levels)
        boxes = cells(found.boxes, feature_map, height, width)
        vectors = l2n(region_max(feature_map, boxes[None].expand(feature_map.shape[0], -1, -1), self.spans))
        return aggregated(vectors, found.valid[None], self.projection), min_max(feature_map.mean(dim=1))

    def regions(self, feature_map: Tensor, height: int, width: int) -> Tensor:
        """Return the unit vectors of the regions of all pictures, for learning the projection. → [R', C]."""
        found = grid(height, width, self.levels)
        boxes = cells(found.boxes[found.valid], feature_map, height, width)
        return l2n(region_max(feature_map, boxes[None].expand(feature_map.shape[0], -1, -1), self.spans)).flatten(0, 1)


class ProposalRMAC(nn.Module):
    """R-MAC over a network's proposals instead of the grid.

    proposer: [B, C, h, w], int32 [B, 2] (height, width) → boxes in pixels [B, R, 4], scores [B, R], count [B, 1].
    """

    def __init__(self, channels: int, proposer: nn.Module, *, stride: int = SIDE_MULTIPLE) -> None:
        """stride: of the trunk, pixels."""
        super().__init__()
        self.proposer, self.spans = proposer, spans(stride)
        self.projection: nn.Module = Projection.untrained(channels, channels, seed=0)

    def forward(self, feature_map: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Describe. feature_map: [B, C, h, w] of a picture [height, width] → unit [B, C], attention [B, h, w].

        The attention of a cell is the sum of the scores of the proposals that cover it.
        """
        found, scores = self.propose(feature_map, height, width)
        vectors = l2n(region_max(feature_map, found.boxes, self.spans))
        covered = coverage(found, scores, feature_map)
        return aggregated(vectors, found.valid, self.projection), min_max(covered)

    def regions(self, feature_map: Tensor, height: int, width: int) -> Tensor:
        """Return the unit vectors of the proposals of all pictures, for learning the projection. → [R', C]."""
        found, _ = self.propose(feature_map, height, width)
        return l2n(region_max(feature_map, found.boxes, self.spans))[found.valid]

    def propose(self, feature_map: Tensor, height: int, width: int) -> tuple[Regions, Tensor]:
        """Return the proposals in cells of the feature map, and their scores [B, R]."""
        size = torch.cat([torch.full((1, 1), side, dtype=torch.int32) for side in (height, width)], dim=1)
        boxes, scores, count = self.proposer(feature_map, size.expand(feature_map.shape[0], 2))
        valid = torch.arange(boxes.shape[1])[None] < count
        inclusive = boxes.round().to(torch.int64) - torch.tensor([0, 0, 1, 1])
        return Regions(boxes=cells(inclusive, feature_map, height, width), valid=valid), scores * valid


def grid(height: int, width: int, levels: int = LEVELS) -> Regions:
    """Cover a rectangle with square regions that overlap by about 0.4 along the longer side.

    Level l has l regions along the shorter side, of side ⌊2w/(l+1)⌋. Integers throughout, so that no rounding error
    moves a region. The number of rows is fixed, as graphs need; `valid` marks existing regions.
    """
    tall, wide = (torch.full((), side, dtype=torch.int64) for side in (height, width))
    shorter, longer = torch.minimum(tall, wide), torch.maximum(tall, wide)
    extra = _extra(shorter, longer)
    rows, valid = [], []
    for level in range(1, levels + 1):
        side = (2 * shorter) // (level + 1)
        along, there = _starts(longer, side, level + extra, level + MOST_EXTRA)
        across, _ = _starts(shorter, side, torch.full_like(extra, level), level)
        starts = torch.stack([along.repeat(level), across.repeat_interleave(level + MOST_EXTRA)], dim=1)  # [n, 2]
        starts = torch.where(wide >= tall, starts, starts.flip(1))
        rows.append(torch.cat([starts, starts + side - 1], dim=1))
        valid.append(there.repeat(level))
    return Regions(boxes=torch.cat(rows), valid=torch.cat(valid))


def _extra(shorter: Tensor, longer: Tensor) -> Tensor:
    """Return the number of extra regions along the longer side that best fits the overlap; 0 for a square."""
    # |1 - (longer - shorter) / (steps · shorter) - 0.4| times 60 · shorter, which is an integer. Not by `abs`:
    # OpenVINO 2026.4 drops it from computations on shapes.
    parts = torch.tensor([60 // steps for steps in range(1, MOST_EXTRA + 1)])
    gap = SIXTIETHS * shorter - (longer - shorter) * parts
    nearest = torch.maximum(gap, -gap).argmin() + 1
    return torch.where(longer > shorter, nearest, torch.zeros_like(nearest))


def _starts(length: Tensor, side: Tensor, count: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Spread `count` segments of `side` evenly over `length`. → starts int64 [most], whether each exists [most]."""
    place = torch.arange(most)
    there = place < count
    starts = (place * (length - side)) // (count - 1).clamp(min=1)
    return torch.where(there, starts, torch.zeros_like(starts)), there


def cells(boxes: Tensor, feature_map: Tensor, height: int, width: int) -> Tensor:
    """Convert inclusive boxes from pixels to cells, rounded as in Caffe's RoI pooling. [..., 4] → [..., 4]."""
    h, w = feature_map.shape[-2:]
    x0, y0, x1, y1 = boxes.unbind(dim=-1)
    left, right = (_rounded(x, w, width) for x in (x0, x1))
    top, bottom = (_rounded(y, h, height) for y in (y0, y1))
    return torch.stack([left, top, torch.maximum(left, right), torch.maximum(top, bottom)], dim=-1)


def _rounded(place: Tensor, count: int, length: int) -> Tensor:
    """⌊place · count / length + ½⌋, at most the last cell."""
    return ((2 * place * count + length) // (2 * length)).clamp(min=0).clamp(max=count - 1)


def spans(stride: int) -> int:
    """Return log2 of the longest side of a feature map, rounded up: 7 for 1,600 px · √2 / 32 = 71 cells."""
    return math.ceil(math.log2(MAX_SIDE * math.sqrt(2.0) / stride))


def region_max(feature_map: Tensor, boxes: Tensor, spans: int) -> Tensor:
    """Return channel maxima over each region. feature_map: [B, C, h, w], boxes: cells [B, R, 4] → [B, R, C].

    Maxima over runs of 1, 2, 4, … cells are computed once, and two of them cover any run. The cost does not depend on
    the regions' area, and all engines have the operators. spans: the number of these runs, for sides below 2^spans.
    """
    _, channels, h, w = feature_map.shape
    runs = _runs(feature_map, spans)  # [B, S, w, C·h]
    x0, y0, x1, y1 = boxes.unbind(dim=-1)  # [B, R]
    steps = torch.tensor([2**k for k in range(spans)])
    span = ((x1 - x0 + 1)[..., None] >= steps).sum(dim=-1) - 1  # [B, R]: the longest run that fits
    reach = steps[span]
    picture = (torch.ones_like(x0[:, :1]).cumsum(dim=0) - 1) * (spans * w)
    first = runs[picture + span * w + x0]
    last = runs[picture + span * w + x1 + 1 - reach]
    columns = torch.maximum(first, last).reshape(*first.shape[:2], channels, h)  # [B, R, C, h]
    row = torch.arange(h)
    inside = (row >= y0[..., None]) & (row <= y1[..., None])  # [B, R, h]
    return torch.where(inside[:, :, None], columns, LOWEST).amax(dim=-1)


def _runs(feature_map: Tensor, spans: int) -> Tensor:
    """Return maxima over 1, 2, 4, … cells to the right, as rows for one gather. [B, C, h, w] → [B·S·w, C·h]."""
    level, levels = feature_map, [feature_map]
    for k in range(spans - 1):
        level = torch.maximum(level, F.pad(level, (0, 2**k), value=LOWEST)[..., 2**k :])
        levels.append(level)
    stacked = torch.stack(levels, dim=1)  # [B, S, C, h, w]
    return stacked.permute(0, 1, 4, 2, 3).flatten(3).flatten(0, 2)


def aggregated(vectors: Tensor, valid: Tensor, projection: nn.Module) -> Tensor:
    """Project unit region vectors [B, R, C], sum the valid ones ([B or 1, R]), L2. → [B, C]."""
    return l2n((projection(vectors) * valid[..., None].to(vectors.dtype)).sum(dim=1))


def coverage(regions: Regions, scores: Tensor, feature_map: Tensor) -> Tensor:
    """Sum the scores of the regions over each cell. boxes in cells [B, R, 4], scores: [B, R] → [B, h, w]."""
    h, w = feature_map.shape[-2:]
    x0, y0, x1, y1 = regions.boxes.unbind(dim=-1)
    column, row = torch.arange(w), torch.arange(h)
    across = ((column >= x0[..., None]) & (column <= x1[..., None])).to(scores.dtype)  # [B, R, w]
    down = ((row >= y0[..., None]) & (row <= y1[..., None])).to(scores.dtype)
    return torch.einsum("br,brh,brw->bhw", scores, down, across)
