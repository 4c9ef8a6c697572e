"""Descriptor heads. To add one, write a module and add a line to `HEADS`.

A head takes the trunk's last feature map and the picture's height and width. It returns unit descriptors [B, C] and the
attention [B, h, w] in [0, 1] that locates the object; the detector turns it into boxes. One of two maps takes the fine
one, too, and returns the unit descriptors of both side by side, [B, C + F], for its whitening to reduce (`beside`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from landseer.export.models.beside import RMACBesideGeM, SideBySide
from landseer.export.models.cider import CiDeR
from landseer.export.models.pooling import GeM, Projection, min_max
from landseer.export.models.rmac import GridRMAC, ProposalRMAC
from landseer.export.models.rpn import RegionProposals


class GeMHead(nn.Module):
    """GeM alone (Radenovic et al. 2018). Its attention is the mean activation."""

    def __init__(self, channels: int, *, p: float = 3.0, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.pool = GeM(p)
        self.projection = projection or nn.Identity()

    def forward(self, feature_map: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Describe. feature_map: [B, C, h, w] → unit [B, C], attention [B, h, w]."""
        return self.projection(self.pool(feature_map)), min_max(feature_map.mean(dim=1))


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """A line of `HEADS`."""

    make: Callable[[int, int], nn.Module]
    """Make an untrained head from the trunk's number of channels and its stride in pixels."""
    all_scales: bool
    """Whether the descriptor pools all five scales of the pyramid or the middle three."""
    learned: tuple[str, ...]
    """Trained parts of this head besides those of every head, by their names in `UNTRAINED`."""
    two_maps: bool = False
    """Whether it takes the fine map besides the last one."""

    def whitening(self, channels: int, fine_channels: int) -> nn.Module:
        """Return an untrained whitening of the mean over scales, to `channels` values."""
        if self.two_maps:
            return SideBySide.untrained(channels, fine_channels)
        return Projection.untrained(channels, channels, seed=0)


HEADS: dict[str, HeadKind] = {
    "gem": HeadKind(make=lambda channels, stride: GeMHead(channels), all_scales=False, learned=()),
    "rmac": HeadKind(
        make=lambda channels, stride: GridRMAC(channels, stride=stride),
        all_scales=False,
        learned=("regional whitening",),
    ),
    "rmac-rpn": HeadKind(
        make=lambda channels, stride: ProposalRMAC(channels, RegionProposals(channels), stride=stride),
        all_scales=False,
        learned=("regional whitening", "region proposals"),
    ),
    "cider": HeadKind(make=lambda channels, stride: CiDeR(channels), all_scales=True, learned=("attention",)),
    "two-map": HeadKind(
        make=lambda channels, stride: RMACBesideGeM(channels, stride=stride),
        all_scales=False,
        learned=(),
        two_maps=True,
    ),
}
