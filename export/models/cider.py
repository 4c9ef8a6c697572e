"""CiDeR: find the object and describe it in one stage, learned from class labels alone.

Song, Yoon, Hwang, Choi, Gu and Avrithis, "On Train-Test Class Overlap and Detection for Image Retrieval", CVPR 2024,
section 4: pool · attentional localisation (AL) · selective context (SC) · backbone enhancement (BE) · trunk. Nobody has
published code. What the paper leaves open, and what is done here:

- SC's convolutions are depthwise, which costs 1/40 of SKNet's 32 groups at C = 1280; its BatchNorms use the statistics
  they are given, since a head that starts from a trained trunk sees small batches.
- The thresholds are 0.3 and 0.6. A mask has no gradient; ours passes that of a sigmoid around the threshold.
- The background is drawn while training, eq. 3, and is its expectation in evaluation, or nothing would be repeatable.
- Everything starts as near to the identity as it can: `pool · trunk` is a good descriptor already, and few data should
  not have to learn it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.models.pooling import GeM, Projection, min_max

THRESHOLDS = (0.3, 0.6)
BACKGROUND_MEAN, BACKGROUND_SPREAD = 0.1, 0.9


class CiDeR(nn.Module):
    """The whole head: what turns a trunk's feature map into a descriptor, and says where it looked."""

    def __init__(self, channels: int, *, p: float = 3.0, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        self.enhancement = SqueezeExcitation(channels, reduction=8)
        self.context = SelectiveContext(channels)
        self.localisation = AttentionalLocalisation(channels, thresholds=thresholds)
        self.pool = GeM(p)
        self.projection = Projection.untrained(channels, channels, seed=0)

    def forward(self, feature_map: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Describe. feature_map: [B, C, h, w] ≥ 0 → unit descriptors [B, C], attention [B, h, w] in [0, 1]."""
        localised, attention = self.localise(feature_map)
        return self.projection(self.pool(localised)), attention

    def localise(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is pooled, AL · SC · BE of a feature map [B, C, h, w], and the attention [B, h, w]."""
        localised: tuple[Tensor, Tensor] = self.localisation(self.context(self.enhancement(feature_map)))
        return localised


class SqueezeExcitation(nn.Module):
    """Weigh the channels by what the whole picture holds. Hu, Shen and Sun 2018.

    The paper's one block with ratio 8 adds its 1.05 M parameters at C = 2048. Gates start at 1.
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)
        nn.init.zeros_(self.excite.weight)
        nn.init.constant_(_bias(self.excite), 4.0)

    def forward(self, x: Tensor) -> Tensor:
        """Gate. x: [B, C, h, w] → the same shape."""
        hidden = F.relu(self.squeeze(x.mean(dim=(-2, -1), keepdim=True)))
        gated: Tensor = x * self.excite(hidden).sigmoid()
        return gated


class SelectiveContext(nn.Module):
    """Choose each channel's field of view: SKNet (Li et al. 2019) with a learned sum before its global pooling, eq. 5.

    Two branches see 3x3 and, dilated, 5x5 cells. Their convex combination is squeezed into one score a branch and
    channel, whose softmax weighs the branches.
    """

    def __init__(self, channels: int, *, groups: int | None = None, reduction: int = 16) -> None:
        super().__init__()
        branches = (Branch(channels, dilation=dilation, groups=groups or channels) for dilation in (1, 2))
        self.branches = nn.ModuleList(branches)
        self.mixture = nn.Parameter(torch.zeros(len(self.branches)))
        hidden = max(channels // reduction, 8)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.select = nn.Conv2d(hidden, len(self.branches) * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Look around. x: [B, C, h, w] → the same shape."""
        seen = torch.stack([branch(x) for branch in self.branches], dim=1)  # [B, 2, C, h, w]
        mixed = torch.einsum("n,bnchw->bchw", self.mixture.softmax(dim=0), seen)
        hidden = F.relu(self.norm(self.squeeze(mixed.mean(dim=(-2, -1), keepdim=True))))
        weights = self.select(hidden).unflatten(1, (len(self.branches), -1)).softmax(dim=1)  # [B, 2, C, 1, 1]
        chosen: Tensor = (seen * weights).sum(dim=1)
        return chosen

    def train(self, mode: bool = True) -> SelectiveContext:
        """Train or evaluate; the BatchNorms' statistics stay what they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Branch(nn.Module):
    """Convolution, BatchNorm and ReLU, which start as the identity on what is not negative."""

    def __init__(self, channels: int, *, dilation: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.dirac_(self.conv.weight, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve. x: [B, C, h, w] → the same shape."""
        return F.relu(self.norm(self.conv(x)))


class AttentionalLocalisation(nn.Module):
    """Keep what one map of attention holds for the object, at several thresholds, fused with all there is."""

    def __init__(self, channels: int, *, thresholds: Sequence[float], sharpness: float = 10.0) -> None:
        super().__init__()
        self.thresholds, self.sharpness = tuple(thresholds), sharpness
        self.attend = nn.Conv2d(channels, 1, 1)
        self.fusion = nn.Parameter(torch.zeros(1 + len(self.thresholds)))
        # It starts from the mean over channels: ImageNet's trunks answer objects more than what is behind them.
        nn.init.constant_(self.attend.weight, 1.0 / channels)
        nn.init.zeros_(_bias(self.attend))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Localise. x: [B, C, h, w] → the same shape, and the attention [B, h, w] in [0, 1]."""
        attention = min_max(F.softplus(self.attend(x))[:, 0])
        masks = [torch.ones_like(attention), *(self._mask(attention, threshold) for threshold in self.thresholds)]
        # A convex combination of masked maps is the map under the same combination of the masks.
        fused = torch.einsum("n,nbhw->bhw", self.fusion.softmax(dim=0), torch.stack(masks))
        return x * fused[:, None], attention

    def _mask(self, attention: Tensor, threshold: float) -> Tensor:
        """1 on the object, less behind it, eq. 2. attention: [B, h, w] → the same shape."""
        inside = (attention >= threshold).to(attention.dtype)
        if not self.training:
            return inside + (1.0 - inside) * EXPECTED_BACKGROUND
        soft = ((attention - threshold) * self.sharpness).sigmoid()
        inside = inside + soft - soft.detach()
        return inside + (1.0 - inside) * drawn_background(attention)


def drawn_background(like: Tensor) -> Tensor:
    """Draw one value a picture: clip(ε, 0, 1), ε ~ N(0.1, 0.9). like: [B, h, w] → [B, 1, 1].

    The paper prints min(0, max(1, ε)), which is always 0; its prose says the clipping.
    """
    noise = torch.randn(like.shape[0], 1, 1, dtype=like.dtype, device=like.device)
    return (BACKGROUND_MEAN + BACKGROUND_SPREAD * noise).clamp(0.0, 1.0)


def expected_background(mean: float = BACKGROUND_MEAN, spread: float = BACKGROUND_SPREAD) -> float:
    """Return the expectation of clip(ε, 0, 1), ε ~ N(mean, spread²): 0.336 for the paper's."""
    low, high = (0.0 - mean) / spread, (1.0 - mean) / spread
    inside = mean * (_normal_cdf(high) - _normal_cdf(low)) + spread * (_normal_pdf(low) - _normal_pdf(high))
    return inside + 1.0 - _normal_cdf(high)


def _normal_cdf(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def _normal_pdf(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _bias(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    if conv.bias is None:
        raise ValueError("this convolution has no bias")
    return conv.bias


EXPECTED_BACKGROUND = expected_background()
