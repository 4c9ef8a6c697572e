"""CiDeR: find the object and describe it in one stage, without boxes to learn from.

Song, Yoon, Hwang, Choi, Gu and Avrithis, "On Train-Test Class Overlap and Detection for Image Retrieval", CVPR 2024,
section 4: pool · attentional localisation (AL) · selective context (SC) · backbone enhancement (BE) · trunk. No code is
public. Our choices where the paper is open, and where we differ from it:

- BE is one squeeze-and-excitation block of ratio 8: 1.05 M parameters at 2048 channels (0.41 M at 1280). The paper
  reports +1.08 M for BE at 2048.
- SC's convolutions are depthwise: 0.83 M parameters at 2048 channels (0.34 M at 1280), where SKNet's 32 groups would
  take 3.15 M (1.23 M). Its BatchNorms keep their statistics in training, because batches are small.
- FC, the projection after pooling, keeps the dimension: 4.20 M numbers at 2048 channels (1.64 M at 1280).
- AL has the thresholds 0.3 and 0.6. A mask has no gradient; ours passes on that of a sigmoid around the threshold.
- AL fuses three masks: the two of eq. 4 and one of all ones, which eq. 4 lacks. Fusion weights are a softmax.
- The background value beta (eq. 3) is drawn once for each picture and threshold in training. In evaluation it is its
  expectation, so that descriptors are deterministic.
- Every block starts near the identity: `pool · trunk` is a good descriptor already, and small training sets should not
  have to learn it again.

Training differs too: the shipped head learned by InfoNCE between views on a frozen trunk, and its FC is a learned
whitening in closed form (`training/localisation.py`). The paper trains all of it end to end by ArcFace on classes, as
`landseer train cider` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.models.pooling import GeM, Projection, min_max

THRESHOLDS = (0.3, 0.6)
BACKGROUND_MEAN, BACKGROUND_SPREAD = 0.1, 0.9


class CiDeR(nn.Module):
    """The whole head: from a trunk's feature map to a descriptor and an attention map."""

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
        """Return AL · SC · BE of a feature map [B, C, h, w], which is pooled next, and the attention [B, h, w]."""
        localised: tuple[Tensor, Tensor] = self.localisation(self.context(self.enhancement(feature_map)))
        return localised


class SqueezeExcitation(nn.Module):
    """Weigh the channels by the picture's mean activations. Hu, Shen and Sun 2018.

    Not torchvision's, which computes the same: its parameters have other names, and files of trained parts and the
    fingerprints of exports depend on ours. Gates start at 0.98.
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
        """Mix the branches. x: [B, C, h, w] → the same shape."""
        seen = torch.stack([branch(x) for branch in self.branches], dim=1)  # [B, 2, C, h, w]
        mixed = torch.einsum("n,bnchw->bchw", self.mixture.softmax(dim=0), seen)
        hidden = F.relu(self.norm(self.squeeze(mixed.mean(dim=(-2, -1), keepdim=True))))
        weights = self.select(hidden).unflatten(1, (len(self.branches), -1)).softmax(dim=1)  # [B, 2, C, 1, 1]
        chosen: Tensor = (seen * weights).sum(dim=1)
        return chosen

    def train(self, mode: bool = True) -> SelectiveContext:
        """Set the mode; BatchNorms always use their stored statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class Branch(nn.Module):
    """Convolution, BatchNorm and ReLU; the identity on non-negative input at the start."""

    def __init__(self, channels: int, *, dilation: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.dirac_(self.conv.weight, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve. x: [B, C, h, w] → the same shape."""
        return F.relu(self.norm(self.conv(x)))


class AttentionalLocalisation(nn.Module):
    """Weigh cells by masks of one attention map at several thresholds, and a mask of all ones. Eqs. 2 to 4."""

    def __init__(self, channels: int, *, thresholds: Sequence[float], sharpness: float = 10.0) -> None:
        super().__init__()
        self.thresholds, self.sharpness = tuple(thresholds), sharpness
        self.attend = nn.Conv2d(channels, 1, 1)
        self.fusion = nn.Parameter(torch.zeros(1 + len(self.thresholds)))
        # Start from the mean over channels: trunks trained on ImageNet respond to objects more than to background.
        nn.init.constant_(self.attend.weight, 1.0 / channels)
        nn.init.zeros_(_bias(self.attend))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Localise. x: [B, C, h, w] → the same shape, and the attention [B, h, w] in [0, 1]."""
        attention = min_max(F.softplus(self.attend(x))[:, 0])
        masks = [torch.ones_like(attention), *(self._mask(attention, threshold) for threshold in self.thresholds)]
        # Combining the masks first equals combining the masked maps, and is cheaper.
        fused = torch.einsum("n,nbhw->bhw", self.fusion.softmax(dim=0), torch.stack(masks))
        return x * fused[:, None], attention

    def _mask(self, attention: Tensor, threshold: float) -> Tensor:
        """Return 1 on the object and the background value elsewhere, eq. 2. attention: [B, h, w] → the same shape."""
        inside = (attention >= threshold).to(attention.dtype)
        if not self.training:
            return inside + (1.0 - inside) * EXPECTED_BACKGROUND
        soft = ((attention - threshold) * self.sharpness).sigmoid()
        inside = inside + soft - soft.detach()
        return inside + (1.0 - inside) * drawn_background(attention)


def drawn_background(like: Tensor) -> Tensor:
    """Draw one value for each picture: clip(ε, 0, 1), ε ~ N(0.1, 0.9). like: [B, h, w] → [B, 1, 1].

    Eq. 3 prints min(0, max(1, ε)), which is always 0; the paper's prose describes clipping.
    """
    noise = torch.randn(like.shape[0], 1, 1, dtype=like.dtype, device=like.device)
    return (BACKGROUND_MEAN + BACKGROUND_SPREAD * noise).clamp(0.0, 1.0)


def expected_background(mean: float = BACKGROUND_MEAN, spread: float = BACKGROUND_SPREAD) -> float:
    """Return the expectation of clip(ε, 0, 1), ε ~ N(mean, spread²): 0.336 for the paper's."""
    noise = NormalDist(mean, spread)
    inside = mean * (noise.cdf(1.0) - noise.cdf(0.0)) + spread**2 * (noise.pdf(0.0) - noise.pdf(1.0))
    return inside + 1.0 - noise.cdf(1.0)


def _bias(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    if conv.bias is None:
        raise ValueError("this convolution has no bias")
    return conv.bias


EXPECTED_BACKGROUND = expected_background()
