"""R-MAC of the last map beside GeM of the fine one: things by their parts, and print by its strokes.

Ours. Two descriptors that err differently are whitened apart and put side by side, so that a cosine is the weighted
mean of two. Whitened together, few photographs cannot tell the noise of one map from that of the other
(docs/research/descriptors.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import SIDE_MULTIPLE
from landseer.export.models.pooling import GeM, Projection, l2n
from landseer.export.models.rmac import GridRMAC

FINE = 0.4
"""Length of the fine map's vector beside the last map's: the weights of their cosines are 1 and the square of this."""
FINE_SHARE = 0.3
"""Share of the descriptor's values that the fine map has."""
SEEDS = 5, 6


class RMACBesideGeM(nn.Module):
    """R-MAC over the fixed grid of the last map, and GeM of the fine map."""

    def __init__(self, channels: int, *, stride: int = SIDE_MULTIPLE) -> None:
        """stride: of the trunk, pixels."""
        super().__init__()
        # Whitened as a whole afterwards, and not region by region.
        self.regions = GridRMAC(channels, projection=nn.Identity(), stride=stride)
        self.pool = GeM()

    def forward(self, last: Tensor, fine: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Pool. last: [B, C, h, w], fine: [B, F, H, W] of a picture [height, width] → [B, C + F], attention [B, h, w].

        Both parts are unit vectors.
        """
        described, attention = self.regions(last, height, width)
        return torch.cat([described, self.pool(fine)], dim=-1), attention


class SideBySide(nn.Module):
    """Whitens two parts of a vector apart, and puts them side by side."""

    shares: Tensor

    def __init__(self, last: Projection, fine: Projection, *, weight: float = FINE) -> None:
        """last: C → D1 values, fine: F → D2 values; weight: of the fine part's vector beside the last one's."""
        super().__init__()
        self.last, self.fine = last, fine
        whole = math.hypot(1.0, weight)
        self.register_buffer("shares", torch.tensor([1.0 / whole, weight / whole]))

    @classmethod
    def untrained(cls, channels: int, fine_channels: int) -> SideBySide:
        """Return one that only reduces, with seeded orthonormal rows, to `channels` values in all.

        ValueError if the fine map has fewer channels than its share of the values.
        """
        fine = fine_values(channels)
        if fine > fine_channels:
            raise ValueError(f"got {fine_channels} channels of the fine map; expected at least {fine}")
        return cls(
            Projection.untrained(channels, channels - fine, seed=SEEDS[0]),
            Projection.untrained(fine_channels, fine, seed=SEEDS[1]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Whiten. x: [B, C + F], the parts of the last and the fine map → unit [B, D1 + D2]."""
        last, fine = torch.split(x, [len(self.last.mean), len(self.fine.mean)], dim=-1)
        both = (self.last(l2n(last)), self.fine(l2n(fine)))
        return l2n(torch.cat([part * share for part, share in zip(both, self.shares, strict=True)], dim=-1))


def fine_values(channels: int) -> int:
    """Return how many of `channels` values of the descriptor are of the fine map."""
    return round(FINE_SHARE * channels)
