"""Self-supervised training of CiDeR's head on a frozen trunk: two views of one photograph share the object.

The head's attention, context and enhancement learn by InfoNCE over views. No class is used, so the head learns to tell
instances apart rather than kinds. This recipe is ours and made the shipped head: the paper trains trunk and head end to
end by ArcFace on classes, as `landseer train cider` does. The FC is a learned whitening of the pooled vectors, computed
in closed form: its 1,280² weights would overfit a few thousand photographs. For the same reason, while the head learns,
each half of the photographs is whitened by a whitening learned from the other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.ensemble.evaluation import Truth, evaluate
from landseer.export.models.cider import CiDeR
from landseer.export.models.pooling import Projection
from landseer.export.training.losses import supervised_contrastive
from landseer.export.training.task import Group
from landseer.export.training.trunk_views import TrunkViews
from landseer.export.training.whitening import Whitening, learned_whitening, pairs_within

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Item = tuple[int, list[int]]
"""A batch: the half of the photographs it comes from, and its rows."""
FOLDS = 2


@dataclass(frozen=True, kw_only=True)
class LocalisationRecipe:
    """Options of the head's training, besides the loop's settings."""

    photographs: int = 32
    """Photographs per batch, each with all its views."""
    mixing_rate: float = 20.0
    """Learning rate factor of the weights that mix branches and masks, and of GeM's p."""
    temperature: float = 0.1
    shrinkage: float = 0.3
    """Shrinkage of the learned whitening, see `learned_whitening`."""
    sample: int = 600
    """Photographs for each epoch's whitening; the final one uses all."""
    held_out: float = 0.2
    """Share of classes held out for validation."""
    validated: int = 200
    """Photographs of held-out classes to validate on."""
    seed: int = 0


class Localisation:
    """The `Task` of training one head."""

    measure = "mAP of views, held-out classes"

    def __init__(self, views: TrunkViews, head: CiDeR, recipe: LocalisationRecipe) -> None:
        self.views, self.module, self.recipe = views, head, recipe
        self.learning, held_out = split(views.labels, held_out=recipe.held_out, seed=recipe.seed)
        draw = np.random.default_rng(recipe.seed)
        self.validating = np.sort(draw.permutation(held_out)[: recipe.validated])
        self.fold = draw.permutation(len(self.learning)) % FOLDS
        self._sampled: list[Vectors] = []
        self._whitenings: list[Projection] = []

    def about(self) -> Mapping[str, str | int | float]:
        """Return what must be equal for a run to resume."""
        shape = "x".join(map(str, self.views.maps.shape))
        return {"method": "localisation", "views": f"{shape} {self.views.key}"} | {
            f"recipe.{k}": v for k, v in asdict(self.recipe).items()
        }

    def groups(self) -> Sequence[Group]:
        """Return the head's parameters; the mixing ones learn faster and without decay."""
        mixing = {"localisation.fusion", "context.mixture", "pool.p"}
        named = list(self.module.named_parameters())
        return [
            Group(parameters=[p for name, p in named if name not in mixing]),
            Group(parameters=[p for name, p in named if name in mixing], rate=self.recipe.mixing_rate, decay=False),
        ]

    def mine(self, epoch: int) -> list[dict[str, Tensor]]:
        """Learn a whitening for each half of the photographs from the other half, with the current head."""
        return [dict(projection(self._whiten(part)).state_dict()) for part in self._sample()]

    def plan(self, epoch: int, mined: list[dict[str, Tensor]]) -> Sequence[Item]:
        """Return batches from alternating halves."""
        self._whitenings = [Projection(found["mean"], found["matrix"]) for found in mined]
        draw, size = np.random.default_rng((self.recipe.seed, epoch)), self.recipe.photographs
        orders = [self.learning[draw.permutation(np.flatnonzero(self.fold == fold))] for fold in range(FOLDS)]
        starts = range(0, min(map(len, orders)) - size + 1, size)
        return [(fold, order[start : start + size].tolist()) for start in starts for fold, order in enumerate(orders)]

    def load(self, item: Item, draw: np.random.Generator) -> tuple[int, Tensor]:
        """Read the maps of a batch's views."""
        fold, rows = item
        return fold, self.views.batch(np.array(rows, np.int64))

    def loss(self, batch: tuple[int, Tensor]) -> Tensor:
        """Return InfoNCE over a batch's views; other photographs' views are negatives. van den Oord et al. 2018."""
        fold, maps = batch
        self._sampled = []
        device, count = self.module.pool.p.device, self.views.maps.shape[1]
        described = self._whitenings[fold].to(device)(self.module.pool(self.module.localise(maps.to(device))[0]))
        owner = torch.arange(len(described) // count, device=device).repeat_interleave(count)
        loss: Tensor = supervised_contrastive(temperature=self.recipe.temperature)(described, owner)
        return loss

    def describe(self, item: Item) -> str:
        """Name a batch."""
        return f"photographs {', '.join(map(str, item[1][:4]))} and {len(item[1]) - 4} more"

    def validate(self) -> float:
        """Return the mAP in percent of each view among all views of the validation photographs."""
        rows = self._whiten(np.concatenate(self._sample()))(self.pooled(self.validating))
        return instance_map(rows, np.repeat(np.arange(len(self.validating)), self.views.maps.shape[1]))

    def weights(self) -> Mapping[str, Tensor]:
        """Return the head's weights."""
        return self.module.state_dict()

    @torch.no_grad()
    def pooled(self, rows: Rows) -> Vectors:
        """Return the pooled vectors of all views of some photographs, before the FC: unit [len(rows) · V, C]."""
        self.module.eval()
        device = self.module.pool.p.device
        batches = (self.views.batch(rows[start : start + 8]).to(device) for start in range(0, len(rows), 8))
        return np.concatenate([self.module.pool(self.module.localise(maps)[0]).cpu().numpy() for maps in batches])

    def whitening(self) -> Whitening:
        """Learn the current head's whitening from all photographs, including held-out classes."""
        return self._whiten(self.pooled(np.arange(len(self.views.labels))))

    def _sample(self) -> list[Vectors]:
        """Return the current head's pooled vectors of some photographs outside each half."""
        if not self._sampled:
            most = self.recipe.sample // FOLDS
            chosen = [self.learning[np.flatnonzero(self.fold != fold)][:: self._every(most)] for fold in range(FOLDS)]
            self._sampled = [self.pooled(rows[:most]) for rows in chosen]
        return self._sampled

    def _every(self, most: int) -> int:
        """Return the stride that samples photographs from all classes, which are consecutive."""
        return max(1, len(self.learning) // FOLDS // most)

    def _whiten(self, pooled: Vectors) -> Whitening:
        return of_views(pooled, self.views.maps.shape[1], self.recipe.shrinkage)


def of_views(pooled: Vectors, count: int, shrinkage: float) -> Whitening:
    """Learn whitening from `count` views of each photograph. pooled: [N · count, C]."""
    owner = np.repeat(np.arange(len(pooled) // count), count)
    queries, positives = pairs_within(owner, most=count - 1, seed=0)
    return learned_whitening(pooled, queries, positives, shrinkage=shrinkage)


def projection(whitening: Whitening) -> Projection:
    """Return a whitening as a module for export."""
    return Projection(torch.from_numpy(whitening.mean).float(), torch.from_numpy(whitening.matrix).float())


def split(labels: Sequence[str], *, held_out: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and those of the held-out classes."""
    classes = sorted(set(labels))
    count = round(held_out * len(classes))
    if not 1 <= count < len(classes):
        raise ValueError(
            f"got {len(classes)} classes; holding out a share of {held_out:g} leaves {count} to validate on"
        )
    chosen = set(np.random.default_rng(seed).permutation(classes)[:count].tolist())
    out = np.array([label in chosen for label in labels])
    return np.flatnonzero(~out), np.flatnonzero(out)


def instance_map(rows: NDArray[np.floating[Any]], owner: Rows) -> float:
    """Return the mAP in percent of unit rows [N, D], each queried against the others of its owner."""
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
    places = np.arange(len(owner))
    truths = [Truth(easy=np.flatnonzero((owner == own) & (places != row))) for row, own in enumerate(owner)]
    return 100 * evaluate(list(order), truths).map
