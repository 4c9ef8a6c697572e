"""A curve over ranks that is fitted freely: what a network gains over it, it gains by looking at the pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork


class FittedCurve(ExpansionNetwork):
    """One weight for each rank, the same for every query, stretched over fewer neighbours as `rank-curve` is."""

    def __init__(self, *, sizes: Sizes) -> None:
        """Start as no expansion."""
        super().__init__()
        self.shape = {"sizes": sizes}
        self.curve = nn.Parameter(torch.zeros(sizes.neighbours))

    def weights(self, tokens: Tensor, neighbour_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `ExpansionNetwork`. It knows nothing of relevance: all logits are 0."""
        real = neighbour_mask.to(tokens.dtype)
        count, most = real.sum(dim=1, keepdim=True).clamp(min=1.0), len(self.curve)
        places = ((real.cumsum(dim=1) - 0.5) * most / count - 0.5).clamp(0.0, most - 1.0)
        low = places.floor().long()
        high = (low + 1).clamp(max=most - 1)
        share = places - low
        weights = ((1.0 - share) * self.curve[low] + share * self.curve[high]) * real
        return F.pad(weights, (1, 0), value=1.0), torch.zeros_like(tokens[..., 0])
