"""LAttDBA within a training: augment a database by the network being trained, differentiably."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.pooling import l2n
from landseer.export.training.episodes import Vectors


def neighbourhoods(vectors: Vectors, count: int) -> NDArray[np.int64]:
    """Return for each vector [N, D] its own row and those of its `count` nearest, best first, [N, 1 + count]."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, np.inf)  # itself, first
    count = min(count, len(vectors) - 1)
    best = np.argpartition(-scores, count, axis=1)[:, : count + 1]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def augmented(network: ExpansionNetwork, vectors: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Return the vectors [N, D] averaged by softmax(w / T) over their `neighbourhoods` [N, 1 + k], of unit norm.

    Equals `ensemble.search.expansion.augmentation` with the served network, but is differentiable.
    """
    shares = (network.among(vectors, rows) / temperature).softmax(dim=1)
    # One matrix product: gathering all neighbourhoods would take N k D numbers, and as many for the gradient.
    spread = torch.zeros(len(vectors), len(vectors)).scatter(1, rows, shares)
    return l2n(spread @ vectors)
