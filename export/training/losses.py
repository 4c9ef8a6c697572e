"""Descriptor losses by name, built on pytorch-metric-learning.

Each is a module called with (descriptors [B, D], labels int64 [B] or None, indices or None). Indices are the library's:
(anchors, positives, negatives) for triplets, (anchors, positives, anchors, negatives) for pairs. To add a loss, write a
function here and add a line to `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import ArcFaceLoss, ContrastiveLoss, SupConLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer, SumReducer
from torch import Tensor, nn


def arcface(*, classes: int, channels: int, margin: float, scale: float = 30.0) -> nn.Module:
    """Classification by angle, with a margin in radians. Deng et al. 2019, eq. 3.

    DOLG has a margin of 0.15, CiDeR of 0.3, both with scale 30. Needs labels; the class vectors W [channels, classes]
    are trained too. Mean over the batch.
    """
    # The library takes degrees.
    loss: nn.Module = ArcFaceLoss(classes, channels, margin=math.degrees(margin), scale=scale)
    return loss


def triplet(*, margin: float = 0.1) -> nn.Module:
    """½ max(0, m + |q - d⁺|² - |q - d⁻|²), averaged over the triplets. Gordo et al. 2016 (DIR)."""
    return _Triplet(margin)


class _Triplet(nn.Module):
    def __init__(self, margin: float) -> None:
        super().__init__()
        squared = LpDistance(normalize_embeddings=False, p=2, power=2)
        self.twice = TripletMarginLoss(margin=margin, distance=squared, reducer=MeanReducer())

    def forward(self, descriptors: Tensor, labels: Tensor | None = None, indices: object = None) -> Tensor:
        loss: Tensor = 0.5 * self.twice(descriptors, labels, indices)
        return loss


def contrastive(*, margin: float = 0.7) -> nn.Module:
    """y z² + (1 - y) max(0, m - z)², with distance z and y = 1 for matching pairs; summed over the pairs.

    Gordo et al. 2020 (LAttQE). cnnimageretrieval-pytorch uses half of it.
    """
    distance = LpDistance(normalize_embeddings=False, p=2)
    loss: nn.Module = _SquaredContrastive(neg_margin=margin, distance=distance, reducer=SumReducer())
    return loss


class _SquaredContrastive(ContrastiveLoss):  # type: ignore[misc]
    """The library's loss with squared terms."""

    def pos_calc(self, pos_pair_dist: Tensor, margin: float) -> Tensor:
        distances: Tensor = super().pos_calc(pos_pair_dist, margin)
        return distances.square()

    def neg_calc(self, neg_pair_dist: Tensor, margin: float) -> Tensor:
        shortfalls: Tensor = super().neg_calc(neg_pair_dist, margin)
        return shortfalls.square()


def supervised_contrastive(*, temperature: float = 0.07) -> nn.Module:
    """-mean over positives of log softmax(cos / t) among all others. Khosla et al. 2020, L_out; InfoNCE for views.

    Needs labels: views of one object share a label. Mean over the batch.
    """
    loss: nn.Module = SupConLoss(temperature=temperature, distance=CosineSimilarity(), reducer=MeanReducer())
    return loss


LOSSES: Mapping[str, Callable[..., nn.Module]] = {
    "arcface": arcface,
    "triplet": triplet,
    "contrastive": contrastive,
    "supervised-contrastive": supervised_contrastive,
}


def triplet_indices(tuples: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return (anchors, positives, negatives) for descriptors in the order query, positive, negatives, query, ….

    tuples: their lengths; a tuple of length 2 + n has n triplets.
    """
    rows = [(first, first + 1, first + 2 + n) for first, length in _starts(tuples) for n in range(length - 2)]
    anchors, positives, negatives = torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, 3).T
    return anchors, positives, negatives


def pair_indices(tuples: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (anchors, positives, anchors, negatives) for the same order, with one positive pair per tuple."""
    firsts = torch.tensor([first for first, _ in _starts(tuples)], device=device)
    anchors, _, negatives = triplet_indices(tuples, device)
    return firsts, firsts + 1, anchors, negatives


def _starts(lengths: Sequence[int]) -> list[tuple[int, int]]:
    place, found = 0, []
    for length in lengths:
        found.append((place, length))
        place += length
    return found
