"""Learn co-attention's reduction as a whitening that brings query vectors and their attended clusters together.

Two views of one photograph are a matching pair, as in learned whitening (Radenovic et al. 2018). One side of each pair
is what co-attention compares a query with: the sum of the other view's clusters, weighted by attention (Hu and Bors
2020, eqs. 7 to 9). Attention itself needs a reduction; the first one is the learned whitening of query vectors alone.
The paper uses PCA whitening. No class is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.backbone import strongest
from landseer.export.models.cluster import Clustering
from landseer.export.models.coattention import CoAttention
from landseer.export.models.pooling import Projection, masked_gem
from landseer.export.training.localisation import projection
from landseer.export.training.whitening import learned_whitening, pairs_within

KEPT = 0.5
"""Share of a view's cells to pool, the strongest: a picture keeps 500 of about 1,100 over its scales."""
AT_ONCE = 1024
"""Pairs per batch of attention."""
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooled:
    """M views, pooled like pictures in the graphs but not reduced."""

    queries: Tensor
    """[M, C]."""
    clusters: Tensor
    """fp16 [M, K, C], zero-padded."""
    counts: Tensor
    """int32 [M, 1]."""


class Whole(Projection):
    """No reduction and no normalisation: the learned whitening is applied to vectors as pooled."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., C]."""
        return x


@torch.no_grad()
def pooled(batches: Iterable[Tensor], channels: int, *, kept: float = KEPT) -> Pooled:
    """Pool batches of views' maps [b, C, h, w]."""
    found = [pooled_features(maps.flatten(2).transpose(1, 2), channels, kept) for maps in batches]
    return Pooled(
        queries=torch.cat([one.queries for one in found]),
        clusters=torch.cat([one.clusters for one in found]),
        counts=torch.cat([one.counts for one in found]),
    )


def pooled_features(features: Tensor, channels: int, kept: float) -> Pooled:
    """Pool the strongest features of pictures. features: [b, L, C]; kept: the share to pool."""
    count = max(1, round(kept * features.shape[1]))
    rows, norms, _, valid = strongest(features, count)
    whole = Whole(torch.zeros(channels), torch.eye(channels))
    clustering = Clustering(sizes=Sizes(channels=channels, locals=count), reduction=whole)
    clusters, counts, _ = clustering(rows, valid.sum(dim=1, keepdim=True).to(torch.int32), norms)
    return Pooled(queries=masked_gem(rows, valid), clusters=clusters, counts=counts)


@torch.no_grad()
def learned_reduction(views: Pooled, each: int, *, sizes: Sizes, shrinkage: float) -> Projection:
    """Learn C → P from `each` consecutive views of every photograph. ValueError if each < 2."""
    if each < 2:
        raise ValueError(f"got {each} view of each photograph; expected at least 2, to form pairs")
    owner = np.repeat(np.arange(len(views.queries) // each), each)
    queries, others = pairs_within(owner, most=each - 1, seed=0)
    vectors, to = views.queries.numpy(), len(views.queries) + np.arange(len(others))
    whole = projection(learned_whitening(vectors, queries, others, dims=sizes.reduced, shrinkage=shrinkage))
    both = np.concatenate([vectors, attended(views, whole, queries, others, sizes=sizes).numpy()])
    return projection(learned_whitening(both, queries, to, dims=sizes.reduced, shrinkage=shrinkage))


def attended(views: Pooled, reduction: Projection, queries: Ids, others: Ids, *, sizes: Sizes) -> Tensor:
    """Sum the clusters of `others`, weighted by the attention of `queries`. → [M, C], not reduced."""
    attention, found = CoAttention(sizes=sizes), []
    for start in range(0, len(queries), AT_ONCE):
        by, of = queries[start : start + AT_ONCE], others[start : start + AT_ONCE]
        clusters = views.clusters[of].float()  # [m, K, C]
        weights = attention(reduction(views.queries[by]), reduction(clusters)[:, None], views.counts[of])[1]
        found.append(torch.einsum("mk,mkc->mc", weights[:, 0], clusters))
    return torch.cat(found)
