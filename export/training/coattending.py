"""Train co-attention's reduction by gradients, on pairs of pictures of one thing: InfoNCE over co-attention's score.

The paper takes PCA whitening. Here it starts from learned whitening of the pairs (`attending.py`), or from a reduction
that is there if that is better, and learns from the score itself, attention included: a picture of a thing shall score
highest with the other picture of that thing, among those of a batch. No class is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.pooling import Projection, l2n
from landseer.export.training.attending import Pooled, learned_reduction
from landseer.export.training.errors import TrainingError
from landseer.export.training.paired_views import EACH
from landseer.export.training.task import Group
from landseer.export.training.weights import state_digest

TEMPERATURE = 10.0
"""T of co-attention's softmax, as exported."""
FEWEST = 10
"""Fewest things to learn from and to validate on."""
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CoattendingRecipe:
    """Options of the training, besides the loop's settings."""

    things: int = 96
    """Things per batch, each with both pictures."""
    temperature: float = 0.05
    """Of InfoNCE over the scores."""
    shrinkage: float = 0.3
    """Of a learned whitening that it starts from, see `learned_whitening`."""
    held_out: float = 0.2
    """Share of the things that validate."""
    seed: int = 0


class LearnedProjection(nn.Module):
    """A `Projection` whose mean and matrix learn."""

    def __init__(self, start: Projection) -> None:
        """start: scaled so that its rows have unit norm on average, which changes nothing that it returns."""
        super().__init__()
        rms = start.matrix.square().sum(dim=1).mean().sqrt()
        self.mean, self.matrix = nn.Parameter(start.mean.clone()), nn.Parameter(start.matrix / rms)

    def forward(self, x: Tensor) -> Tensor:
        """Project. x: [..., C] → unit [..., P]."""
        return l2n((x - self.mean) @ self.matrix.T)


class Coattending:
    """The `Task` of training a reduction."""

    measure = "mAP of the other picture of a thing by co-attention, held-out things"

    def __init__(
        self, pools: Pooled, key: str, recipe: CoattendingRecipe, *, sizes: Sizes, start: Projection | None = None
    ) -> None:
        """pools: of `EACH` pictures of each thing in turn. key: identifies them. TrainingError for too few things.

        start: a reduction that is there. It starts from that or from a whitening learned from what it learns from,
        whichever validates better.
        """
        self.pools, self.key, self.recipe = pools, key, recipe
        count = len(pools.queries) // EACH
        order = np.random.default_rng(recipe.seed).permutation(count)
        held = round(recipe.held_out * count)
        if held < FEWEST or count - held < FEWEST:
            raise TrainingError(
                f"got {count} things, of which {held} would validate; expected at least {FEWEST} to validate on and as "
                "many to learn from"
            )
        self.held, self.learning = np.sort(order[:held]), np.sort(order[held:])
        learned = learned_reduction(_some(pools, self.learning), EACH, sizes=sizes, shrinkage=recipe.shrinkage)
        starts = [LearnedProjection(one) for one in (learned, *([] if start is None else [start]))]
        self.module = max(starts, key=self._validated)
        self.origin = state_digest(self.module)

    def about(self) -> Mapping[str, str | int | float]:
        """Return what must be equal for a run to resume."""
        about = {"method": "coattention", "pairs": self.key, "first weights": self.origin}
        return about | {f"recipe.{k}": v for k, v in asdict(self.recipe).items()}

    def groups(self) -> Sequence[Group]:
        """Return all parameters as one group."""
        return [Group(parameters=list(self.module.parameters()), decay=False)]

    def mine(self, epoch: int) -> None:
        """Mine nothing: a batch of random things holds look-alikes enough."""

    def plan(self, epoch: int, mined: None) -> Sequence[list[int]]:
        """Return batches of things, each once; the last ones of an epoch that fill no batch are left out."""
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.learning)
        size = min(self.recipe.things, len(order))
        return [order[start : start + size].tolist() for start in range(0, len(order) - size + 1, size)]

    def load(self, item: Sequence[int], draw: np.random.Generator) -> Pooled:
        """Return the pictures of a batch."""
        return _some(self.pools, np.array(item, np.int64))

    def loss(self, batch: Pooled) -> Tensor:
        """Return InfoNCE over the scores of each picture with the other pictures of all things, both ways."""
        scores = _scores(self.module, batch)
        one, two = scores[0::EACH, 1::EACH], scores[1::EACH, 0::EACH]
        right, t = torch.arange(len(one), device=scores.device), self.recipe.temperature
        return 0.5 * (F.cross_entropy(one / t, right) + F.cross_entropy(two / t, right))

    def describe(self, item: Sequence[int]) -> str:
        """Name a batch."""
        return f"things {', '.join(map(str, item[:4]))} and {max(0, len(item) - 4)} more"

    def validate(self) -> float:
        """Return the mAP in percent of the other picture of each held-out thing, among the pictures of all things."""
        return self._validated(self.module)

    @torch.no_grad()
    def _validated(self, module: LearnedProjection) -> float:
        asked = (EACH * self.held[:, None] + np.arange(EACH)).ravel()
        scores = _scores(module, self.pools, asked).cpu()
        rows = torch.arange(len(asked))
        other = torch.from_numpy(asked ^ 1)
        scores[rows, torch.from_numpy(asked)] = -2.0
        # Ties count against it, or a reduction to one point would be perfect.
        ranks = (~(scores < scores[rows, other][:, None])).sum(dim=1)
        return 100.0 * float((1.0 / ranks).mean())

    def weights(self) -> Mapping[str, Tensor]:
        """Return the reduction's mean and matrix."""
        return {f"reduction.{name}": value for name, value in self.module.state_dict().items()}


def _scores(module: LearnedProjection, pools: Pooled, rows: Rows | None = None) -> Tensor:
    """Return the scores of pictures, all or some rows, with all pictures."""
    device = module.matrix.device
    queries = pools.queries if rows is None else pools.queries[torch.from_numpy(rows)]
    clusters = module(pools.clusters.to(device).float())
    return coattended(module(queries.to(device)), clusters, pools.counts.to(device))


def coattended(queries: Tensor, clusters: Tensor, counts: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return co-attention's score of every query with every candidate, as `CoAttention` does. → [Q, N].

    queries: unit [Q, P]; clusters: [N, K, P]; counts: [N, 1]. The norm of the weighted sum is that of its weights in
    the clusters' Gram matrix, so that no [Q, N, P] is needed.
    """
    similarity = torch.einsum("qp,nkp->qnk", queries, clusters)
    real = torch.arange(clusters.shape[1], device=counts.device) < counts  # [N, K]
    weights = (temperature * similarity).masked_fill(~real, -1e9).softmax(dim=-1) * real
    gram = clusters @ clusters.transpose(1, 2)  # [N, K, K]
    norms = torch.einsum("qnk,nkl,qnl->qn", weights, gram, weights).clamp(min=1e-12).sqrt()
    scores = (weights * similarity).sum(dim=-1) / (norms + 1e-6)
    return torch.where(counts[:, 0] > 0, scores, -1.0)


def _some(pools: Pooled, things: Rows) -> Pooled:
    """Return the pictures of some things."""
    rows = torch.from_numpy((EACH * things[:, None] + np.arange(EACH)).ravel())
    return Pooled(queries=pools.queries[rows], clusters=pools.clusters[rows], counts=pools.counts[rows])
