"""Attention regions: turn an attention map into scored boxes, in one graph.

CiDeR takes connected components of the thresholded attention. Components are labelled by their largest cell index, by
hooking and pointer jumping (Shiloach and Vishkin 1982). The number of rounds grows with the logarithm of the map's
size, so a fixed number suffices for every map.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import MAX_SIDE, SIDE_MULTIPLE, Sizes


class Detection(NamedTuple):
    """The outputs of `detector`, in the contract's order."""

    boxes: Tensor
    box_scores: Tensor
    box_count: Tensor


class AttentionRegions(nn.Module):
    """Boxes around the connected components (8-neighbours) of attention ≥ `threshold`.

    A box's score is its maximum attention. Boxes are ordered by their total attention, so that a bright speck does not
    come before the object. The paper leaves the threshold open; 0.4 of the min-max normalised map is our choice.
    """

    def __init__(self, *, sizes: Sizes, threshold: float = 0.4, stride: int = SIDE_MULTIPLE) -> None:
        """stride: of the trunk, pixels; the map has so many cells fewer a side than a picture of scale 1."""
        super().__init__()
        self.sizes, self.threshold = sizes, threshold
        self.rounds = math.ceil(math.log2((MAX_SIDE / stride) ** 2))

    def forward(self, attention: Tensor, image_size: Tensor) -> Detection:
        """Detect. attention: [B, h, w] in [0, 1], image_size: int32 [B, 2] (height, width) → `Detection`."""
        _, h, w = attention.shape
        inside = attention >= self.threshold
        labels = components(inside, self.rounds).flatten(1)  # [B, h*w]
        mass = component_sums(labels, (attention * inside).flatten(1))
        held, root = F.pad(mass, (0, self.sizes.boxes)).topk(self.sizes.boxes, dim=1)  # [B, M]
        valid = (held > 0).to(attention.dtype)
        member = (labels[:, None, :] == root[:, :, None] + 1).to(attention.dtype)  # [B, M, h*w]
        member = member.reshape(member.shape[0], self.sizes.boxes, h, w)
        cell = image_size.to(attention.dtype) / torch.tensor([h, w], dtype=attention.dtype)  # [B, 2]
        y0, y1 = extent(member.amax(dim=3))
        x0, x1 = extent(member.amax(dim=2))
        boxes = torch.stack([x0, y0, x1, y1], dim=2) * cell.flip(1).repeat(1, 2)[:, None, :]
        return Detection(
            boxes=boxes * valid[..., None],
            box_scores=(member * attention[:, None]).amax(dim=(2, 3)) * valid,
            box_count=valid.sum(dim=1, keepdim=True).to(torch.int32),
        )


def components(inside: Tensor, rounds: int) -> Tensor:
    """Label the 8-connected components of masks. inside: bool [B, h, w] → int64, 0 outside.

    A component's label is 1 + the largest flat index among its cells, its root.
    """
    _, h, w = inside.shape
    mask = inside.flatten(1)
    flat = torch.arange(1, h * w + 1)[None] * mask  # [B, h*w]
    for _ in range(rounds):
        grid = flat.to(torch.float32).reshape(-1, 1, h, w)
        nearby = F.max_pool2d(grid, 3, stride=1, padding=1)
        nearby = nearby.flatten(1).to(torch.int64) * mask
        # Hook: pass a cell's largest neighbour on to its root, or only one branch of a tree would learn of it.
        flat = flat.scatter_reduce(1, (flat - 1).clamp(min=0), nearby, "amax") * mask
        # Jump: adopt the root's label, which halves every path.
        for _ in range(2):
            flat = torch.maximum(flat, flat.gather(1, (flat - 1).clamp(min=0))) * mask
    return flat.reshape(-1, h, w)


def component_sums(labels: Tensor, values: Tensor) -> Tensor:
    """Sum values over each component, at its root. labels, values: [B, L] → [B, L], 0 elsewhere."""
    totals = torch.zeros_like(values)
    summed: Tensor = totals.scatter_add(1, (labels - 1).clamp(min=0), values)
    return summed


def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and one past the last occupied cell. occupied: 0/1 [B, M, n] → two float [B, M]."""
    n = occupied.shape[2]
    position = torch.arange(n, dtype=occupied.dtype)
    last = (occupied * (position + 1)).amax(dim=2)
    first = n - (occupied * (n - position)).amax(dim=2)
    return first, last
