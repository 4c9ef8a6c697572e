"""DIR's region proposal network: find objects in the trunk's last feature map.

Gordo et al. 2017, section 3.3, after Ren et al. 2015: a 3x3 convolution, then 1x1 ones for objectness and regression,
on a frozen trunk. Its 32 to 256 proposals replace R-MAC's grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.backbone import spatial_size
from landseer.export.models.box_ops import (
    RankedBoxes,
    anchor_shapes,
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
from landseer.export.models.trunk import Trunk

ANCHOR_SIZES = (64.0, 128.0, 256.0, 512.0)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""The paper leaves anchors open. Faster R-CNN has sides 128, 256 and 512 at stride 16. At our stride of 32 and long
side of 640 we add 64, two cells wide, for objects that are small in the picture."""


class RegionProposals(nn.Module):
    """Proposals from a feature map.

    Open in the paper and chosen as in Faster R-CNN: suppression above an IoU of 0.7, no proposals with a side below 16
    pixels (half a cell here), 512 hidden channels. The best 1,000 anchors enter suppression.
    """

    shapes: Tensor

    def __init__(
        self,
        channels: int,
        *,
        proposals: int = 128,
        candidates: int = 1000,
        overlap: float = 0.7,
        shortest: float = 16.0,
        hidden: int = 512,
        sizes: tuple[float, ...] = ANCHOR_SIZES,
        ratios: tuple[float, ...] = ANCHOR_RATIOS,
    ) -> None:
        super().__init__()
        self.proposals, self.candidates, self.overlap, self.shortest = proposals, candidates, overlap, shortest
        self.register_buffer("shapes", anchor_shapes(sizes, ratios), persistent=False)
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, len(self.shapes), 1)
        self.regression = nn.Conv2d(hidden, 4 * len(self.shapes), 1)

    @classmethod
    def untrained(cls, channels: int, *, seed: int, proposals: int = 128, hidden: int = 512) -> RegionProposals:
        """Return a network with Faster R-CNN's initial weights, N(0, 0.01²), by seed."""
        module, generator = cls(channels, proposals=proposals, hidden=hidden), torch.Generator().manual_seed(seed)
        for name, value in module.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(value, std=0.01, generator=generator)
            else:
                nn.init.zeros_(value)
        return module

    def forward(self, feature_map: Tensor, image_size: Tensor) -> RankedBoxes:
        """Propose. feature_map: [B, C, h, w], image_size: int32 [B, 2] (height, width) → `RankedBoxes`, R = proposals.

        Boxes in pixels of the picture, within it; scores in [0, 1].
        """
        logits, offsets = self.predict(feature_map)
        top, index, real = leading(logits, self.candidates)
        anchors = rows(self.anchors(feature_map, image_size), index)
        boxes = clip(decode(rows(offsets, index), anchors), image_size)
        scores = at_least(boxes, torch.where(real, torch.sigmoid(top), -1.0), self.shortest)
        return ranked(boxes, scores, unsuppressed(boxes, scores, self.overlap), self.proposals)

    def predict(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objectness logits [B, L] and offsets [B, L, 4] of all L = h*w*A anchors."""
        hidden = F.relu(self.conv(feature_map))
        offsets = self.regression(hidden).permute(0, 2, 3, 1)  # [B, h, w, A*4]
        return self.objectness(hidden).permute(0, 2, 3, 1).flatten(1), offsets.reshape(offsets.shape[0], -1, 4)

    def anchors(self, feature_map: Tensor, image_size: Tensor) -> Tensor:
        """Return the anchors around the centres of the cells, in pixels of the picture. [B, L, 4]."""
        h, w = feature_map.shape[-2:]
        cells = torch.tensor([w, h], dtype=torch.float32, device=feature_map.device)
        stride = image_size.to(torch.float32).flip(1) / cells  # [B, 2]
        return anchors_at((grid(feature_map) + 0.5) * stride[:, None, :], self.shapes)


class ProposalDetector(nn.Module):
    """A detector of the best proposals: trunk, proposals, the contract's boxes."""

    def __init__(self, *, trunk: Trunk, rpn: RegionProposals, sizes: Sizes) -> None:
        super().__init__()
        if rpn.proposals < sizes.boxes:
            raise ValueError(f"got {rpn.proposals} proposals; expected at least the detector's {sizes.boxes} boxes")
        self.trunk, self.rpn, self.sizes = trunk, rpn, sizes

    def forward(self, image: Tensor) -> Detection:
        """Detect. image: uint8 [B, H, W, 3] → `Detection`."""
        found = self.rpn(self.trunk(image.permute(0, 3, 1, 2).float()), spatial_size(image))
        return first_boxes(found, self.sizes)


def first_boxes(found: RankedBoxes, sizes: Sizes) -> Detection:
    """Return the best M of the ranked boxes, in the contract's form."""
    return Detection(
        boxes=found.boxes[:, : sizes.boxes],
        box_scores=found.scores[:, : sizes.boxes],
        box_count=found.number.clamp(max=sizes.boxes),
    )
