"""Score a query against the clusters of its candidates by co-attention. Hu and Bors 2020, eqs. 7 to 10."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.pooling import l2n


class CoAttentionScores(NamedTuple):
    """The outputs of `coattention`, in the contract's order."""

    scores: Tensor
    cluster_weights: Tensor


class CoAttention(nn.Module):
    """Attend to each candidate's clusters with the query, then compare the query with their weighted sum.

    a' = softmax(T cos(q, v_i)), T = 10; score = cos(q, Σ a'_i v_i). Eq. 9 prints a_i but means the softmaxed
    a'_i; its 1/K cancels in the cosine.
    """

    def __init__(self, *, sizes: Sizes, temperature: float = 10.0) -> None:
        super().__init__()
        self.sizes, self.temperature = sizes, temperature

    def forward(self, query_vector: Tensor, candidate_clusters: Tensor, candidate_counts: Tensor) -> CoAttentionScores:
        """Score. query_vector: [B, P], candidate_clusters: fp16 [B, C, K, P], candidate_counts: int32 [B, C]."""
        clusters = candidate_clusters.float()
        real = torch.arange(self.sizes.clusters) < candidate_counts[..., None]  # [B, C, K]
        similarity = torch.einsum("bp,bckp->bck", l2n(query_vector), clusters)
        weights = (self.temperature * similarity + torch.where(real, 0.0, -1e9)).softmax(dim=-1) * real
        attended = l2n(torch.einsum("bck,bckp->bcp", weights, clusters))
        scores = torch.einsum("bp,bcp->bc", l2n(query_vector), attended)
        # A candidate without clusters must rank last.
        return CoAttentionScores(scores=torch.where(candidate_counts > 0, scores, -1.0), cluster_weights=weights)
