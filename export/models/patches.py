"""Patches: features of the middle of the trunk, where it looks strongest, kept as signs.

Detect-to-Retrieve takes its local features from conv4, at stride 16, by a trained attention. Ours are found where the
last map, of stride 32, is strongest, since no attention is trained for them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class PatchFeatures(NamedTuple):
    """The features of patches, strongest first."""

    features: Tensor
    """[B, N, C], zero where not valid."""
    picked: Tensor
    """[B, N], places among the cells of all middle maps."""
    valid: Tensor
    """[B, N], 0 or 1."""


def strongest_patches(middle: list[Tensor], last: list[Tensor], count: int) -> PatchFeatures:
    """Return the `count` cells of middle maps, each [B, C, h, w], where the last maps have the largest L2 norm.

    last: of the same scales, each [B, C', h', w']; their norms are resized bilinearly.
    """
    strengths = torch.cat([_strengths(of, like).flatten(1) for like, of in zip(middle, last, strict=True)], dim=1)
    features = torch.cat([cells.flatten(2).transpose(1, 2) for cells in middle], dim=1)  # [B, L, C]
    # Padded before TopK: in ONNX a K above the length is an error.
    top, picked = F.pad(strengths, (0, count)).topk(count, dim=1)
    valid = (top > 0).to(features.dtype)
    picked = picked.clamp(max=features.shape[1] - 1)
    row = torch.ones_like(picked[:, :1]).cumsum(dim=0) - 1  # [B, 1]: 0 .. B-1
    rows = features.flatten(0, 1)[picked + row * features.shape[1]]
    return PatchFeatures(features=rows * valid[..., None], picked=picked, valid=valid)


def packed(values: Tensor, valid: Tensor) -> Tensor:
    """Pack the signs of values [B, N, 8 n] to uint8 [B, N, n], as numpy.packbits does; zero where not valid."""
    bits = (values > 0).to(values.dtype) * valid[..., None]
    eights = bits.reshape(*bits.shape[:-1], values.shape[-1] // 8, 8)
    # Multiplied and added up, as neither ONNX Runtime nor OpenVINO packs bits.
    weights = torch.tensor([128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0], dtype=values.dtype)
    summed: Tensor = (eights * weights).sum(dim=-1)
    return summed.to(torch.uint8)


def _strengths(last: Tensor, like: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(last, dim=1, keepdim=True)
    return F.interpolate(norms, size=like.shape[2:], mode="bilinear", align_corners=False)
