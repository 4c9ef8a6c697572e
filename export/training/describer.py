"""Trunk and head for training end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landseer.export.models.pooling import GeM, Projection, l2n
from landseer.export.models.trunk import Trunk
from landseer.export.training.loading import loaded
from landseer.export.training.shots import Pixels, Shots, grouped
from landseer.export.training.task import Group

POWER_RATE = 10.0
"""Learning rate factor of GeM's power, which also has no weight decay, as in cnnimageretrieval-pytorch."""


class DescriberNetwork(nn.Module):
    """Compute a descriptor from pixels at the picture's own scale.

    The trunk stays in evaluation mode with frozen BatchNorms, statistics and weights, because small batches of large
    pictures have poor statistics. The head's projection, a constant in serving, is trained.
    """

    def __init__(self, trunk: Trunk, head: nn.Module, *, frozen: bool = False) -> None:
        super().__init__()
        self.trunk, self.head, self.frozen = trunk, head, frozen
        for module in trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        for module in head.modules():
            if isinstance(module, Projection):
                learnable(module)

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe. pixels: uint8 [B, H, W, 3] → unit float32 [B, D]."""
        height, width = pixels.shape[1], pixels.shape[2]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            feature_map = self.trunk(pixels.permute(0, 3, 1, 2).float())
        descriptors, _ = self.head(feature_map, height, width)
        return l2n(descriptors.float())

    def train(self, mode: bool = True) -> DescriberNetwork:
        """Set the head's mode; the trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def groups(self) -> list[Group]:
        """Return what to train: the trunk unless frozen, and the head; GeM's powers in a group of their own."""
        powers = [module.p for module in self.head.modules() if isinstance(module, GeM)]
        apart = {id(power) for power in powers}
        head = [one for one in self.head.parameters() if id(one) not in apart and one.requires_grad]
        trunk = [one for one in self.trunk.features.parameters() if one.requires_grad and not self.frozen]
        # The trunk's classifier may be part of its features, but gets no gradient.
        unused = {id(one) for one in self.trunk.classifier.parameters()}
        listed = Group(parameters=head + [one for one in trunk if id(one) not in unused])
        return [listed, *([Group(parameters=powers, rate=POWER_RATE, decay=False)] if powers else [])]

    def device(self) -> torch.device:
        """Return its device."""
        return self.trunk.mean.device

    def described(self, groups: Sequence[tuple[list[int], Pixels]]) -> Tensor:
        """Describe pictures grouped by size (`shots.grouped`), in their original order. → [B, D]."""
        places = [place for some, _ in groups for place in some]
        found = torch.cat([self(torch.from_numpy(pixels).to(self.device())) for _, pixels in groups])
        order = torch.empty(len(places), dtype=torch.int64)
        order[torch.tensor(places)] = torch.arange(len(places))
        return found[order.to(found.device)]


def learnable(projection: Projection) -> None:
    """Turn the constants of a projection into parameters, under the same names."""
    for name in ("mean", "matrix"):
        value = projection._buffers.pop(name)
        if value is not None:
            projection.register_parameter(name, nn.Parameter(value.clone()))


def describe_rows(
    describer: DescriberNetwork,
    shots: Shots,
    rows: Sequence[int],
    *,
    batch: int,
    progress: Callable[[int], None] = lambda n: None,
) -> NDArray[np.float32]:
    """Describe photographs unaugmented and without gradients. → unit [N, D], in the order of `rows`.

    Call it in evaluation mode. Photographs of equal size are batched.
    """
    order = sorted(range(len(rows)), key=lambda place: (shots.sizes[rows[place]], place))
    cut = [order[start : start + batch] for start in range(0, len(order), batch)]

    def load(_: int, places: Sequence[int]) -> list[tuple[list[int], Pixels]]:
        return grouped(shots.pixels(rows[place]) for place in places)

    vectors: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad(), loaded(load, cut, 0) as batches:
        for places, groups in _pairs(cut, batches):
            made = describer.described(groups).cpu().numpy()
            vectors |= dict(zip(places, made, strict=True))
            progress(len(places))
    return np.stack([vectors[place] for place in range(len(rows))])


def _pairs(
    cut: Sequence[Sequence[int]], batches: Iterator[list[tuple[list[int], Pixels]]]
) -> Iterator[tuple[Sequence[int], list[tuple[list[int], Pixels]]]]:
    yield from zip(cut, batches, strict=True)
