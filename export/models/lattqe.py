"""LAttQE: attention-based query expansion, learned. Gordo, Radenovic and Berg 2020."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.contracts import Sizes
from landseer.export.models.pooling import l2n


class Expansion(NamedTuple):
    """The outputs of `lattqe`, in the contract's order."""

    expanded: Tensor
    weights: Tensor


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer. The paper: 64 heads, feed-forward width D."""

    def __init__(self, *, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.widen, self.narrow = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Encode. x: [B, T, D], bias: [B, 1, 1, T], 0 or very negative where a key is padding → [B, T, D]."""
        q, k, v = (self._split(part) for part in self.project(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.out(mixed))
        fed: Tensor = self.norm_feed(x + self.narrow(F.relu(self.widen(x))))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # [B, heads, T, D/heads]


class LAttQE(nn.Module):
    """Weigh the neighbours of a query by what attention makes of all of them together.

    q̂ = l2n(Σ w_i d_i), w_i = cos(q̃, d̃_i), with d_0 = q (so w_0 = 1), d_i the neighbours, and q̃, d̃_i their encodings
    after learned positions p_0 .. p_k were added. Weights are not clipped: the paper does not say so.
    """

    def __init__(self, *, sizes: Sizes, layers: int = 3, heads: int = 64) -> None:
        super().__init__()
        size = sizes.channels
        self.positions = nn.Parameter(torch.randn(sizes.neighbours + 1, size) * size**-0.5)
        self.layers = nn.ModuleList(EncoderLayer(size=size, heads=heads) for _ in range(layers))

    @classmethod
    def untrained(cls, sizes: Sizes, *, seed: int) -> LAttQE:
        """Return the network with seeded weights, the global random state untouched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(sizes=sizes).eval()

    def forward(self, query: Tensor, neighbours: Tensor, neighbour_mask: Tensor) -> Expansion:
        """Expand. query: [B, D], neighbours: [B, k, D], neighbour_mask: bool [B, k] → `Expansion`."""
        tokens = torch.cat([query[:, None], neighbours], dim=1)  # [B, 1+k, D]
        present = F.pad(neighbour_mask.to(tokens.dtype), (1, 0), value=1.0)  # [B, 1+k]
        bias = ((present - 1.0) * 1e9)[:, None, None, :]
        encoded = tokens + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            encoded = layer(encoded, bias)
        unit = l2n(encoded)
        weights = torch.einsum("bd,btd->bt", unit[:, 0], unit) * present
        return Expansion(expanded=l2n(torch.einsum("bt,btd->bd", weights, tokens)), weights=weights)
