"""Pooling and normalisation shared by all descriptors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def l2n(x: Tensor, dim: int = -1, eps: float = 1e-6) -> Tensor:
    """Divide by the L2 norm plus `eps` along `dim`; a zero vector stays zero. Any shape."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / (norm + eps)


def gem(x: Tensor, p: Tensor | float = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean over space. x: [B, C, H, W] → [B, C].

    (1/HW Σ max(x, eps)^p)^(1/p). Radenovic et al. 2018, eq. 3.
    """
    return x.clamp(min=eps).pow(p).mean(dim=(-2, -1)).pow(1.0 / p)


class GeM(nn.Module):
    """Generalised mean with a learned power, at least 1."""

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, x: Tensor) -> Tensor:
        """Pool. x: [B, C, H, W] → unit vectors [B, C]."""
        return l2n(gem(x, self.p.clamp(min=1.0)))


def min_max(x: Tensor, flat: float = 0.01) -> Tensor:
    """Stretch each map to [0, 1]. x: [B, h, w] ≥ 0 → the same shape.

    A map whose range is below `flat` of its maximum does not locate anything, and bf16 noise would fill its range. It
    becomes all ones: the whole picture.
    """
    low, high = x.amin(dim=(1, 2), keepdim=True), x.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span <= flat * high, torch.ones_like(x), (x - low) / (span + 1e-6))


def masked_gem(x: Tensor, weights: Tensor, p: Tensor | float = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean over a weighted set. x: [B, N, C], weights: [B, N] ≥ 0 → [B, C].

    With weights 0 and 1 it equals `gem` over the vectors of weight 1. An empty set gives zeros, so that a picture or
    cluster without features has no direction.
    """
    total = weights.sum(dim=1, keepdim=True)
    mean = torch.einsum("bn,bnc->bc", weights, x.clamp(min=eps).pow(p)) / total.clamp(min=1.0)
    return mean.pow(1.0 / p) * (total > 0).to(x.dtype)


def random_rows(count: int, channels: int, *, seed: int) -> Tensor:
    """Draw orthonormal rows [count, channels]: rows of the cosine transform with random column signs.

    The subsampled randomised transform of Ailon and Chazelle 2009, with cosines instead of Hadamard signs, because the
    number of channels is no power of two. Every number comes from a table. A QR decomposition would sum, and its last
    bits vary with the number of threads; here an export has the same fingerprint on every machine.
    """
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.permutation(channels)[:count])[:, None]
    signs = draw.choice([-1.0, 1.0], channels)
    cosines = np.array([math.cos(math.pi * step / (2 * channels)) for step in range(4 * channels)])
    found = cosines[(2 * np.arange(channels) + 1) * rows % (4 * channels)]  # cos(π (j + ½) k / C)
    scales = np.where(rows == 0, 1.0, math.sqrt(2.0)) / math.sqrt(channels)
    return torch.from_numpy((found * scales * signs).astype(np.float32))


class Projection(nn.Module):
    """Whitening, PCA, or both folded into one affine map, then L2: l2n(P (x - m)).

    Untrained, it is the identity, or a seeded matrix with orthonormal rows if it reduces; that preserves angles on
    average.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # [C]
        self.register_buffer("matrix", matrix)  # [D, C]

    @classmethod
    def untrained(cls, channels: int, size: int, *, seed: int) -> Projection:
        """Return the identity (size = channels) or a seeded orthonormal reduction."""
        if size == channels:
            return cls(torch.zeros(channels), torch.eye(channels))
        return cls(torch.zeros(channels), random_rows(size, channels, seed=seed))

    def forward(self, x: Tensor) -> Tensor:
        """Project. x: [..., C] → [..., D], unit norm (a zero input with zero mean stays zero)."""
        return l2n((x - self.mean) @ self.matrix.T)
