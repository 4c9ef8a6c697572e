"""A variant of LAttQE that reads cosines and ranks in place of the descriptors.

The network of Gordo, Radenovic and Berg 2020 reads the descriptors themselves and weighs a neighbour by the cosine of
its encoding with the query's. Trained on few classes, it only learned to average. The differences here:

- A token holds its rank and cosines only: with the query, with the other neighbours, and their mean. So one network
  serves descriptors of any size, and it cannot memorise the classes.
- Attention adds the cosine of two descriptors to its logits, times a factor learned for each head.
- A linear layer reads the weight from the encoding. It may be below zero: the last neighbours show what the query's
  surroundings have in common, and that is subtracted. (The paper's cosines may be negative too.)
- Without cosines it weighs by rank alone and is a curve, the same for every query. Validation chooses between the two
  forms (`training/lattqe.py`); `rank-curve` is such a curve.
- The transformer is small (2 layers of 32) and pre-norm.

As in the paper: learned positions, q' = unit(sum of w_i d_i) with w_0 = 1, and an auxiliary classifier of relevance in
training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork

FEATURES = 8
RANKS = (4, 5)
"""Features that depend on the rank."""
COUNT = 6
"""The feature that holds the number of neighbours."""
LEAST_SPREAD = 0.02
"""Added to the standard deviation of similarities: smaller differences are noise."""


class RelationalLayer(nn.Module):
    """A transformer encoder layer whose attention also reads the cosines of the descriptors."""

    def __init__(self, *, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.sharpness = nn.Parameter(torch.linspace(0.0, 10.0, heads))

    def forward(self, x: Tensor, cosines: Tensor, bias: Tensor) -> Tensor:
        """Encode. x: [B, T, S], cosines: [B, T, T], bias: [B, 1, 1, T], very negative at padding → [B, T, S]."""
        q, k, v = (self._split(part) for part in self.project(self.norm_attention(x)).chunk(3, dim=-1))
        known = self.sharpness[None, :, None, None] * cosines[:, None]
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + known + bias
        x = x + self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        fed: Tensor = x + self.narrow(F.gelu(self.widen(self.norm_feed(x))))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # [B, heads, T, S/heads]


class RelationalLAttQE(ExpansionNetwork):
    """Weigh the neighbours of a query by their relations. It starts as AQE: all weights are 1."""

    def __init__(
        self,
        *,
        sizes: Sizes,
        size: int = 32,
        heads: int = 4,
        layers: int = 2,
        positions: bool = True,
        cosines: bool = True,
    ) -> None:
        """Start from random weights. positions, cosines: False ignores them, for ablations."""
        super().__init__()
        given = {"size": size, "heads": heads, "layers": layers, "positions": positions, "cosines": cosines}
        self.shape = {"sizes": sizes, **given}
        self.reads_cosines = cosines
        ranks = set(RANKS if positions else ())
        self.read = sorted(ranks | (set(range(FEATURES)) - set(RANKS) if cosines else {COUNT}))
        self.positions = nn.Parameter(torch.randn(sizes.neighbours + 1, size) * (0.5 if positions else 0.0))
        self.positions.requires_grad_(positions)
        self.embed = nn.Sequential(nn.Linear(FEATURES, size), nn.GELU(), nn.Linear(size, size))
        self.layers = nn.ModuleList(RelationalLayer(size=size, heads=heads) for _ in range(layers))
        self.norm, self.weigh, self.relevance = nn.LayerNorm(size), nn.Linear(size, 1), nn.Linear(size, 1)
        # A direct path from relations to weights, for what needs no attention.
        last = nn.Linear(64, 1)
        self.direct = nn.Sequential(nn.Linear(FEATURES, 64), nn.GELU(), last)
        for module, value in ((self.weigh, 1.0), (last, 0.0)):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, value)

    @classmethod
    def untrained(cls, sizes: Sizes, *, seed: int) -> RelationalLAttQE:
        """Return the network with seeded weights; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(sizes=sizes).eval()

    def weights(self, tokens: Tensor, neighbour_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `ExpansionNetwork`."""
        present = F.pad(neighbour_mask.to(tokens.dtype), (1, 0), value=1.0)  # [B, 1+k]
        return self._weights(tokens @ tokens.transpose(1, 2), present)

    def among(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """See `ExpansionNetwork`. Copies no token: [M, 1+k, D] would take a hundred times the memory."""
        cosines = (vectors @ vectors.T)[rows[:, :, None], rows[:, None, :]]
        weights, _ = self._weights(cosines, torch.ones_like(cosines[:, 0]))
        return weights

    def _weights(self, cosines: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and logits [B, T] from the cosines [B, T, T] of tokens; present: [B, T], 1 or 0."""
        features = self._told(cosines, present)
        x = self.positions[: cosines.shape[1]] + self.embed(features)
        bias = ((present - 1.0) * 1e9)[:, None, None, :]
        known = cosines if self.reads_cosines else torch.zeros_like(cosines)
        for layer in self.layers:
            x = layer(x, known, bias)
        x = self.norm(x)
        weights = (self.weigh(x) + self.direct(features))[..., 0] * present
        weights = torch.cat([torch.ones_like(weights[:, :1]), weights[:, 1:]], dim=1)
        return weights, self.relevance(x)[..., 0]

    def _told(self, cosines: Tensor, present: Tensor) -> Tensor:
        """Return the relations of each token, [B, T, 8], 0 for those that are ignored."""
        features = relations(cosines, present)
        if len(self.read) == FEATURES:
            return features
        read = torch.zeros(FEATURES, dtype=features.dtype, device=features.device)
        read[self.read] = 1.0
        return features * read


def relations(cosines: Tensor, present: Tensor) -> Tensor:
    """Return the input features of each token, [B, T, 8], each some units wide.

    cosines: [B, T, T], of the query (first) and its neighbours, nearest first. present: [B, T], 1, or 0 at padding.
    """
    count = present[:, 1:].sum(dim=1, keepdim=True).clamp(min=1.0)  # [B, 1]
    to_query, real = cosines[:, 0], present[:, 1:]
    mean = (to_query[:, 1:] * real).sum(dim=1, keepdim=True) / count
    variance = ((to_query[:, 1:] - mean).square() * real).sum(dim=1, keepdim=True) / count
    spread = (variance + 1e-10).sqrt() + LEAST_SPREAD  # the root of 0 has no gradient
    to_all = (cosines * present[:, None]).sum(dim=2) / (count + 1.0)
    mean_to_all = (to_all * present).sum(dim=1, keepdim=True) / (count + 1.0)
    rank = (present.cumsum(dim=1) - 1.0).clamp(min=0.0)
    whole = torch.ones_like(to_query)
    told = (
        2.0 * to_query,
        (to_query - mean) / spread,
        4.0 * to_all,
        8.0 * (to_all - mean_to_all),
        2.0 * rank / count,
        torch.log1p(rank) / 2.0,
        torch.log1p(count) / 2.0 * whole,
        10.0 * spread * whole,
    )
    return torch.stack(told, dim=-1)
