"""A LAttQE that reads how the query and its neighbours relate, in place of the descriptors themselves.

The network of Gordo, Radenovic and Berg 2020 reads the descriptors and weighs a neighbour by the cosine of its encoding
with the query's. Trained on few things, it only learned to average. The differences here:

- A token holds relations only (`relations`): cosines with the query, the other neighbours and the better-ranked ones,
  gaps, rank, number of neighbours. So one network serves descriptors of any size, and it cannot memorise things.
- The same cosines are also read with the mean of the neighbourhood taken out. Where all neighbours are alike because
  they are photographs of one kind, that shows which of them have more in common with the query than the kind.
- Attention adds both cosines of two descriptors to its logits, each times a factor learned for each head.
- The probability p_i that a neighbour is relevant makes its weight: w_i = g_i p_i - b r o_i / sum of o_j, with
  o_i = (1 - p_i)^4. Strengths g_i and b, one for the query, are read from the encodings. Relevant neighbours are added.
  What those that are hardly relevant have in common is subtracted, which the paper's cosines can hardly do. Few
  neighbours do not show what is common: r grows from 0 at 16 neighbours to 1 at 64. In the paper relevance is a loss
  alone.
- It begins with g = b = 0: no expansion.
- The transformer is small (2 layers of 32) and pre-norm.

As in the paper: learned positions, q' = unit(sum of w_i d_i) with w_0 = 1, and a classifier of relevance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork

FEATURES = 20
RANKS = (17, 18)
"""Features that depend on the rank alone."""
ORDERED = (2, 3, 7, 8, 10, 11, 12, 13, *RANKS)
"""Features that depend on the order of the neighbours."""
COUNT = 19
"""The feature that holds the number of neighbours."""
LEAST_SPREAD = 0.02
"""Added to the standard deviation of similarities: smaller differences are noise."""
SURELY_OTHER = 4
"""Power of the probability not to be relevant, for what is subtracted: of a neighbour of 0.5 a sixteenth."""
COMMON = (16, 64)
"""Numbers of neighbours up to which nothing is subtracted, and from which on all of it is."""


class RelationalLayer(nn.Module):
    """A transformer encoder layer whose attention also reads the cosines of the descriptors."""

    def __init__(self, *, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.sharpness = nn.Parameter(torch.linspace(0.0, 10.0, heads))
        self.sharpness_centred = nn.Parameter(torch.linspace(4.0, 0.0, heads))

    def forward(self, x: Tensor, cosines: Tensor, centred: Tensor, bias: Tensor) -> Tensor:
        """Encode. x: [B, T, S]; cosines, centred: [B, T, T]; bias: [B, 1, 1, T], very negative at padding."""
        q, k, v = (self._split(part) for part in self.project(self.norm_attention(x)).chunk(3, dim=-1))
        sharp, sharp_centred = self.sharpness[None, :, None, None], self.sharpness_centred[None, :, None, None]
        known = sharp * cosines[:, None] + sharp_centred * centred[:, None]
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + known + bias
        x = x + self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        fed: Tensor = x + self.narrow(F.gelu(self.widen(self.norm_feed(x))))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # [B, heads, T, S/heads]


class RelationalLAttQE(ExpansionNetwork):
    """Weigh the neighbours of a query by their relations. It starts as no expansion: all weights are 0."""

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
        known = set(range(FEATURES)) if cosines else {COUNT, *RANKS}
        self.read = sorted(known if positions else known - set(ORDERED))
        self.positions = nn.Parameter(torch.randn(sizes.neighbours + 1, size) * (0.5 if positions else 0.0))
        self.positions.requires_grad_(positions)
        self.embed = nn.Sequential(nn.Linear(FEATURES, size), nn.GELU(), nn.Linear(size, size))
        self.layers = nn.ModuleList(RelationalLayer(size=size, heads=heads) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.strength, self.relevance, self.subtract = nn.Linear(size, 1), nn.Linear(size, 1), nn.Linear(size, 1)
        # A direct path from relations to strength and relevance, for what needs no attention.
        last = nn.Linear(64, 2)
        self.direct = nn.Sequential(nn.Linear(FEATURES, 64), nn.GELU(), last)
        for module in (self.strength, self.subtract, last):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

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
        within = centred(cosines, present)
        features = self._told(cosines, within, present)
        x = self.positions[: cosines.shape[1]] + self.embed(features)
        bias = ((present - 1.0) * 1e9)[:, None, None, :]
        known = (cosines, within) if self.reads_cosines else (torch.zeros_like(cosines),) * 2
        for layer in self.layers:
            x = layer(x, *known, bias)
        x = self.norm(x)
        direct = self.direct(features)
        logits = self.relevance(x)[..., 0] + direct[..., 1]
        relevant, real = torch.sigmoid(logits[:, 1:]), present[:, 1:]
        strength = self.strength(x)[:, 1:, 0] + direct[:, 1:, 0]
        # Only the classifier's loss teaches relevance, so that it stays a probability.
        relevant = relevant.detach()
        others = (1.0 - relevant) ** SURELY_OTHER * real
        share = ((real.sum(dim=1, keepdim=True) - COMMON[0]) / (COMMON[1] - COMMON[0])).clamp(0.0, 1.0)
        common = share * others / others.sum(dim=1, keepdim=True).clamp(min=1.0)
        weights = strength * relevant * real - self.subtract(x)[:, 0] * common
        return torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1), logits

    def _told(self, cosines: Tensor, within: Tensor, present: Tensor) -> Tensor:
        """Return the relations of each token, [B, T, FEATURES], 0 for those that are ignored."""
        features = relations(cosines, within, present)
        if len(self.read) == FEATURES:
            return features
        read = torch.zeros(FEATURES, dtype=features.dtype, device=features.device)
        read[self.read] = 1.0
        return features * read


def centred(cosines: Tensor, present: Tensor) -> Tensor:
    """Return the cosines [B, T, T] of tokens once the mean of those present [B, T] is subtracted from each."""
    share = present / present.sum(dim=1, keepdim=True)
    by_row = cosines @ share[..., None]  # [B, T, 1]
    whole = share[:, None] @ by_row  # [B, 1, 1]
    products = cosines - by_row - by_row.transpose(1, 2) + whole
    # Not `diagonal`, which is exported as EyeLike: TensorRT has none.
    places = torch.arange(cosines.shape[1], device=cosines.device)
    squares = (products * (places[:, None] == places)).sum(dim=2)
    lengths = (squares.clamp(min=0.0) + LEAST_SPREAD**2).sqrt()
    return products / (lengths[:, :, None] * lengths[:, None, :])


def relations(cosines: Tensor, within: Tensor, present: Tensor) -> Tensor:
    """Return the input features of each token, [B, T, FEATURES], each some units wide.

    cosines: [B, T, T], of the query (first) and its neighbours, nearest first. within: the same, centred. present:
    [B, T], 1, or 0 at padding.
    """
    real = present[:, 1:]
    count = real.sum(dim=1, keepdim=True).clamp(min=1.0)  # [B, 1]
    to_query, nearest = cosines[:, 0], cosines[:, 0, 1:2]
    mean = (to_query[:, 1:] * real).sum(dim=1, keepdim=True) / count
    variance = ((to_query[:, 1:] - mean).square() * real).sum(dim=1, keepdim=True) / count
    spread = (variance + 1e-10).sqrt() + LEAST_SPREAD  # the root of 0 has no gradient
    rank = (present.cumsum(dim=1) - 1.0).clamp(min=0.0)
    # Better-ranked neighbours of each token: [B, T, T - 1].
    better = (rank[:, :, None] > rank[:, None, 1:]).to(cosines.dtype) * real[:, None]
    others = cosines[:, :, 1:] * (rank[:, :, None] != rank[:, None, 1:])
    to_all = (others * real[:, None]).sum(dim=2) / (count - 1.0).clamp(min=1.0)
    among = (to_all[:, 1:] * real).sum(dim=1, keepdim=True) / count
    after = torch.cat([to_query[:, 1:], to_query[:, -1:]], dim=1)
    whole = torch.ones_like(to_query)
    told = (
        2.0 * to_query,
        (to_query - mean) / spread,
        10.0 * (nearest - to_query),
        10.0 * (to_query - after) * (rank < count),
        2.0 * to_all,
        8.0 * (to_all - among),
        8.0 * (to_query - to_all),
        2.0 * _mean(cosines[:, :, 1:], better),
        2.0 * _most(cosines[:, :, 1:], better),
        2.0 * within[:, 0],
        2.0 * _mean(within[:, :, 1:], better),
        2.0 * _most(within[:, :, 1:], better),
        2.0 * within[:, 1],
        2.0 * nearest * whole,
        2.0 * mean * whole,
        10.0 * spread * whole,
        8.0 * (mean - among) * whole,
        2.0 * rank / count,
        torch.log1p(rank) / 2.0,
        torch.log1p(count) / 2.0 * whole,
    )
    return torch.stack(told, dim=-1) * present[..., None]


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen (1 or 0) of values [B, T, n], 0 where none is chosen. → [B, T]."""
    return (values * chosen).sum(dim=2) / chosen.sum(dim=2).clamp(min=1.0)


def _most(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the largest of the chosen (1 or 0) of values [B, T, n], 0 where none is chosen. → [B, T]."""
    return (values * chosen + (chosen - 1.0) * 2.0).amax(dim=2).clamp(min=-1.0) * (chosen.sum(dim=2) > 0)
