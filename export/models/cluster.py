"""Compute a picture's co-attention vectors: deterministic k-means of its local features, then GeM per cluster.

Hu and Bors 2020: the first seed is the feature of largest norm, further seeds are farthest-first, then Lloyd. The paper
leaves open the number of Lloyd rounds (10 here) and empty clusters (re-seeded with the farthest point here).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.pooling import Projection

FAR = 1e30
SAME = 1e-4
"""Features closer than this, relative to the largest squared norm, count as one, so that rounding makes no clusters."""


class Clusters(NamedTuple):
    """The outputs of `cluster`, in the contract's order."""

    clusters: Tensor
    cluster_count: Tensor
    assignments: Tensor


class Clustering(nn.Module):
    """Compute K vectors of a picture from up to N local features."""

    def __init__(self, *, sizes: Sizes, reduction: Projection, p: float = 3.0, rounds: int = 10) -> None:
        super().__init__()
        self.sizes, self.reduction, self.p, self.rounds = sizes, reduction, p, rounds

    def forward(self, local_features: Tensor, local_count: Tensor, local_norms: Tensor) -> Clusters:
        """Cluster. local_features: [B, N, C], local_count: int32 [B, 1], local_norms: [B, N] → `Clusters`."""
        valid = torch.arange(self.sizes.locals)[None] < local_count  # [B, N]
        points = centred(local_features, valid)
        seeds, distinct = farthest_first(points, local_norms, valid, self.sizes.clusters)
        owner = lloyd(points, seeds, distinct, valid, self.rounds)
        member = one_hot(owner, self.sizes.clusters, valid)  # [B, N, K]
        # GeM within all clusters at once; an empty cluster (fewer features than K) stays zero.
        powers = torch.einsum("bnk,bnc->bkc", member, local_features.clamp(min=1e-6).pow(self.p))
        sizes = member.sum(dim=1)  # [B, K]
        pooled = (powers / sizes.clamp(min=1.0)[..., None]).pow(1.0 / self.p)
        filled = sizes > 0
        vectors = self.reduction(pooled) * filled[..., None]
        # Filled clusters first, in order, so that the count tells which rows are real.
        order = torch.where(filled, 0, self.sizes.clusters) + torch.arange(self.sizes.clusters)[None]
        rank = (order[:, None, :] < order[:, :, None]).sum(dim=2)  # [B, K]: new row of every cluster
        place = (rank[:, None, :] == torch.arange(self.sizes.clusters)[None, :, None]).to(vectors.dtype)
        return Clusters(
            clusters=torch.bmm(place, vectors).to(torch.float16),
            cluster_count=filled.sum(dim=1, keepdim=True).to(torch.int32),
            assignments=torch.where(valid, rank.gather(1, owner), -1).to(torch.int32),
        )


def centred(features: Tensor, valid: Tensor) -> Tensor:
    """Subtract each picture's mean feature. features: [B, N, C].

    This leaves distances unchanged. Activations have a large common mean; without it far less precision is lost to
    cancellation, so engines that sum in another order still agree on the nearest centre.
    """
    weights = valid.to(features.dtype)[..., None]
    mean = (features * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (features - mean) * weights


def farthest_first(points: Tensor, norms: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose seeds: the feature of largest norm, then repeatedly the point farthest from all seeds. norms: [B, N].

    Returns seeds [B, K, C] and whether each is distinct from those before it, bool [B, K]: if a picture has fewer
    than K different features, the remaining seeds are duplicates and must not compete for members.
    """
    largest = torch.where(valid, norms, -1.0)
    seeds, distinct = [rows(points, largest.argmax(dim=1))], [valid.any(dim=1)]
    apart = SAME * largest.amax(dim=1).clamp(min=0.0).pow(2)  # [B]
    nearest = torch.where(valid, FAR, -1.0)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, squared_distances(points, seeds[-1][:, None])[..., 0])
        seeds.append(rows(points, nearest.argmax(dim=1)))
        distinct.append(nearest.amax(dim=1) > apart)
    return torch.stack(seeds, dim=1), torch.stack(distinct, dim=1)


def lloyd(points: Tensor, centres: Tensor, distinct: Tensor, valid: Tensor, rounds: int) -> Tensor:
    """Run Lloyd's k-means for a fixed number of rounds. centres: [B, K, C] → cluster of each point, int64 [B, N]."""
    barred = torch.where(distinct, 0.0, FAR)[:, None, :]
    for _ in range(rounds):
        distances = squared_distances(points, centres) + barred  # [B, N, K]
        member = one_hot(distances.argmin(dim=2), centres.shape[1], valid)
        total = member.sum(dim=1)[..., None]  # [B, K, 1]
        means = torch.einsum("bnk,bnc->bkc", member, points) / total.clamp(min=1.0)
        worst = torch.where(valid, distances.amin(dim=2), -1.0).argmax(dim=1)  # [B]
        farthest = rows(points, worst)[:, None].expand_as(means)
        centres = torch.where(total > 0, means, farthest)
    return (squared_distances(points, centres) + barred).argmin(dim=2)


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return ‖f - c‖² of points [B, N, C] and centres [B, K, C]. → [B, N, K], ≥ 0."""
    cross = torch.bmm(points, centres.transpose(1, 2))
    squares = points.pow(2).sum(dim=2)[..., None] + centres.pow(2).sum(dim=2)[:, None, :]
    return (squares - 2.0 * cross).clamp(min=0.0)


def rows(features: Tensor, index: Tensor) -> Tensor:
    """Select one row per picture. features: [B, N, C], index: int64 [B] → [B, C]."""
    picked = index[:, None, None].expand(features.shape[0], 1, features.shape[2])
    return features.gather(1, picked)[:, 0]


def one_hot(owner: Tensor, count: int, valid: Tensor) -> Tensor:
    """Return membership as 0/1 floats, zero for padding. owner: int64 [B, N], valid: bool [B, N] → [B, N, K]."""
    return ((owner[..., None] == torch.arange(count)) & valid[..., None]).to(torch.float32)
