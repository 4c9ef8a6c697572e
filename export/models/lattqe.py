"""LAttQE, learned attention-based query expansion (Gordo, Radenovic and Berg, ECCV 2020).

The paper's network does not ship trained: it gains less than `MeanLAttQE`, which the default export holds
(docs/research/expansion.md). An export of another descriptor without `--lattqe FILE` holds seeded weights, which the
server refuses to use unless a request sets `allow_untrained`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.pooling import l2n


class ExpansionOutputs(NamedTuple):
    """The outputs of `lattqe`, in the contract's order."""

    expanded: Tensor
    weights: Tensor
    relevance: Tensor


class ExpansionNetwork(nn.Module, ABC):
    """A network that weighs the neighbours of a query: q' = l2n(sum of w_i d_i), d_0 = q and w_0 = 1."""

    shape: Mapping[str, Any]
    """The arguments of its constructor."""

    def copy(self) -> Self:
        """Return a new network of the same form and weights."""
        with torch.random.fork_rng(devices=[]):
            other = type(self)(**self.shape)
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, query: Tensor, neighbours: Tensor, neighbour_mask: Tensor) -> ExpansionOutputs:
        """Expand. query: [B, D], neighbours: [B, k, D], neighbour_mask: bool [B, k] → `ExpansionOutputs`."""
        tokens = torch.cat([query[:, None], neighbours], dim=1)  # [B, 1+k, D]
        weights, logits = self.weights(tokens, neighbour_mask)
        return ExpansionOutputs(
            expanded=l2n(torch.einsum("bt,btd->bd", weights, tokens)),
            weights=weights,
            relevance=torch.sigmoid(logits[:, 1:]) * neighbour_mask.to(tokens.dtype),
        )

    @abstractmethod
    def weights(self, tokens: Tensor, neighbour_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [B, 1+k] and logits of relevance [B, 1+k].

        The query's weight is 1, a padded neighbour's 0.

        tokens: [B, 1+k, D], the query's first, neighbours nearest first.
        """

    def among(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Return weights [M, 1+k] for tokens given as rows [M, 1+k] of unit vectors [N, D]."""
        weights, _ = self.weights(vectors[rows], torch.ones(rows[:, 1:].shape, dtype=torch.bool))
        return weights


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer. The paper: 64 heads, attention and feed-forward of width D."""

    def __init__(self, *, size: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(size, 3 * width)
        self.out = nn.Linear(width, size)
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.widen, self.narrow = nn.Linear(size, width), nn.Linear(width, size)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Encode. x: [B, T, D], bias: [B, 1, 1, T], 0, or very negative where a key is padding → [B, T, D]."""
        q, k, v = (self._split(part) for part in self.project(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.out(mixed))
        fed: Tensor = self.norm_feed(x + self.narrow(F.relu(self.widen(x))))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # [B, heads, T, width/heads]


class LAttQE(ExpansionNetwork):
    """The paper's network: a transformer encoder over the query and its neighbours, nearest first.

    w_i = cos(q̃, d̃_i), with q̃, d̃_i the encodings of d_0 = q and the neighbours, to which learned positions p_0 .. p_k
    were added. Weights are not clipped; the paper mentions no clipping.
    """

    def __init__(self, *, sizes: Sizes, layers: int = 3, heads: int = 64, width: int | None = None) -> None:
        """width: of attention and feed-forward, a multiple of heads; the paper's is D, the default."""
        super().__init__()
        self.shape = {"sizes": sizes, "layers": layers, "heads": heads, "width": width}
        size = sizes.channels
        self.positions = nn.Parameter(torch.randn(sizes.neighbours + 1, size) * size**-0.5)
        self.layers = nn.ModuleList(EncoderLayer(size=size, heads=heads, width=width or size) for _ in range(layers))
        self.relevance = nn.Linear(size, 1)

    @classmethod
    def untrained(cls, sizes: Sizes, *, seed: int, width: int | None = None) -> LAttQE:
        """Return the network with seeded weights; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(sizes=sizes, width=width).eval()

    def weights(self, tokens: Tensor, neighbour_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `ExpansionNetwork`."""
        present = F.pad(neighbour_mask.to(tokens.dtype), (1, 0), value=1.0)  # [B, 1+k]
        bias = ((present - 1.0) * 1e9)[:, None, None, :]
        encoded = tokens + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            encoded = layer(encoded, bias)
        unit = l2n(encoded)
        return torch.einsum("bd,btd->bt", unit[:, 0], unit) * present, self.relevance(encoded)[..., 0]
