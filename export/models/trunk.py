"""A trunk: a network that makes feature maps of pictures, its input normalisation, and where its weights are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from landseer.export.models.checkpoints import Checkpoint
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import Trained

Stride = Literal["auto", "v1", "v1.5"]
"""Where a bottleneck halves the resolution: on its 1x1 (ResNet v1) or its 3x3 convolution (v1.5, torchvision)."""


class Maps(NamedTuple):
    """The feature maps of one picture that are used, [B, C, h, w] each, ≥ 0 but for the middle one."""

    last: Tensor
    """Of stride 32."""
    middle: Tensor
    """Of stride 16, with few channels: local features."""
    fine: Tensor
    """Of stride 16, with many channels, each of which answers to one thing: to be pooled."""


class Trunk(nn.Module):
    """A trunk with its input normalisation. x: [B, 3, H, W] RGB in 0..255 → [B, C, h, w] ≥ 0.

    h is ⌊H/32⌋ or ⌈H/32⌉; of a vision transformer H over its patch, rounded.
    """

    mean: Tensor
    std: Tensor
    middle_channels: int
    """Channels of the middle map of `maps`."""
    fine_channels: int
    """Channels of the fine map of `maps`."""
    backbone = variant = ""
    """Set by `BACKBONES`: its key there, and `Loaded.variant`. A training records them."""

    def __init__(
        self,
        *,
        features: nn.Module,
        classifier: nn.Module,
        channels: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        maps: Callable[[Tensor], Maps] | None = None,
        split: Callable[[], tuple[nn.Module, nn.Module]] | None = None,
        middle_channels: int | None = None,
        fine_channels: int | None = None,
        stride: int = 32,
    ) -> None:
        """maps: returns the maps of normalised pictures; None for a trunk with one map.

        split: see the method. stride: pixels of a picture to a cell of the last map.
        """
        super().__init__()
        self.features, self.stride = features, stride
        self._maps, self._split = maps, split
        self.middle_channels = middle_channels or channels
        self.fine_channels = fine_channels or channels
        # Not exported. Tests classify photographs with it, which shows that weights were loaded right.
        self.classifier = classifier
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature map."""
        feature_map: Tensor = self.features((x - self.mean) / self.std)
        return feature_map

    def maps(self, x: Tensor) -> Maps:
        """Return the last feature map and those of stride 16; the last in place of those that do not exist."""
        if self._maps is None:
            last = self(x)
            return Maps(last, last, last)
        return self._maps((x - self.mean) / self.std)

    def split(self) -> tuple[nn.Module, nn.Module]:
        """Return all but the last blocks, and these, with the trunk's own weights. WeightsError if it has none.

        The first takes normalised pictures; the second makes the last map of what the first returns.
        """
        if self._split is None:
            raise WeightsError(
                f"{self.backbone} has no last blocks to train; expected an EfficientNet-Lite or a ResNet"
            )
        return self._split()

    def drop_classifier(self) -> None:
        """Replace the classifier, which nothing that is exported needs, by the identity."""
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if child is self.classifier and parent is not self:
                    setattr(parent, name, nn.Identity())
        self.classifier = nn.Identity()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A trunk and where its weights came from."""

    trunk: Trunk
    source: str
    variant: str
    """Separates networks that the same weights fit."""
    checkpoint: Checkpoint | None = None
    """The public checkpoint that the weights are from, with its pooling and whitening."""
    trained: Trained | None = None
    """The result of `landseer train`, with its head."""


Load = Callable[[Path | None, Stride], Loaded]
"""Takes a file of weights, or None for those that a package carries."""


@dataclass(frozen=True, kw_only=True)
class BackboneKind:
    """A line of `BACKBONES`."""

    channels: int
    load: Load


def levels(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return 0..1 as 0..255."""
    red, green, blue = fractions
    return 255.0 * red, 255.0 * green, 255.0 * blue
