"""Train trunk and head end to end on pixels, by class labels or by tuples with mined negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landseer.ensemble.pictures.pictures import target_size
from landseer.export.models.heads import HEADS
from landseer.export.models.trunk import Trunk
from landseer.export.training.describer import DescriberNetwork, describe_rows
from landseer.export.training.heldout import validate
from landseer.export.training.losses import LOSSES, pair_indices, triplet_indices
from landseer.export.training.recipes import Stage
from landseer.export.training.sampling import (
    batches_of_classes,
    batches_of_one_shape,
    hard_negatives,
    hard_triplets,
    queries_with_positives,
    rows_of_classes,
    same_class,
)
from landseer.export.training.shots import Pixels, Shots, grouped
from landseer.export.training.task import Group
from landseer.export.training.weights import state_digest

MINE, PLAN = 100, 101
"""Purposes of random states: part of the sequences that seed them."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Training and validation data."""

    training: Shots
    validation: Shots
    positives: Mapping[int, Sequence[int]] | None = None
    """Positives of each row, which share points with it; None if all of its class are positives."""


class PictureTask:
    """Common part of both ways of training on pictures."""

    measure = "leave-one-out mAP, %"

    def __init__(self, describer: DescriberNetwork, loss: nn.Module, data: Data, stage: Stage, *, seed: int) -> None:
        self.describer, self.data, self.stage, self.seed = describer, data, stage, seed
        # Before training: a stage resumes only from the same initial weights.
        self.origin = state_digest(describer)
        self.module: nn.Module = nn.ModuleDict({"describer": describer, "loss": loss})

    def about(self) -> Mapping[str, str | int | float]:
        """Return the stage's options and the identity of the data."""
        chosen = {f"method.{name}": str(value) for name, value in vars(self.stage).items()}
        shots = self.data.training
        return chosen | {
            "data.training": shots.digest(),
            "data.validation": self.data.validation.digest(),
            "data.long_side": shots.profile.long_side,
            "trunk": f"{self.describer.trunk.backbone} {self.describer.trunk.variant}".strip(),
            "first weights": self.origin,
        }

    def groups(self) -> Sequence[Group]:
        """Return the describer's groups, and the loss's own weights, such as class vectors."""
        own = list(self.module["loss"].parameters())  # type: ignore[index]
        return [*self.describer.groups(), *([Group(parameters=own)] if own else [])]

    def mine(self, epoch: int) -> Any:
        """Mine nothing."""
        return None

    def describe(self, item: Any) -> str:
        """Name the files of a batch."""
        rows = list(np.concatenate([np.atleast_1d(one) for one in item])) if len(item) else []
        names = [self.data.training.photographs[row].path.name for row in rows]
        return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

    def validate(self) -> float:
        """Return the leave-one-out mAP of the held-out classes."""
        return validate(self.describer, self.data.validation, batch=self.stage.batch)

    def weights(self) -> Mapping[str, Tensor]:
        """Return the state of trunk.* and head.*."""
        return self.describer.state_dict()

    def _judged(self, descriptors: Tensor, labels: Tensor | None, indices: object = None) -> Tensor:
        """Return the loss, always computed in float32."""
        with torch.autocast(descriptors.device.type, enabled=False):
            loss: Tensor = self.module["loss"](descriptors.float(), labels, indices)  # type: ignore[index]
        return loss

    def _seen(self, row: int, size: tuple[int, int], draw: np.random.Generator) -> Pixels:
        return self.data.training.view(row, size, draw)


class ByLabels(PictureTask):
    """Train on batches of photographs of one size with class labels."""

    def plan(self, epoch: int, mined: Any) -> Sequence[list[int]]:
        """Return batches of rows: of similar shape, or of classes with `each` photographs."""
        draw, shots = np.random.default_rng((self.seed, PLAN, epoch)), self.data.training
        batch, each = self.stage.batch, self.stage.each
        if each is None:
            return batches_of_one_shape(shots.aspects(), batch, draw)
        classes = min(max(batch // each, 2), len(shots.classes))
        return batches_of_classes(shots.labels, classes, each, draw)

    def load(self, item: Sequence[int], draw: np.random.Generator) -> tuple[Pixels, Tensor]:
        """Return views of the rows, resized to their best common size, and their labels."""
        size = self.data.training.common_size(item)
        labels = torch.tensor([self.data.training.labels[row] for row in item])
        return np.stack([self._seen(row, size, draw) for row in item]), labels

    def loss(self, batch: tuple[Pixels, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        pixels, labels = batch
        device = self.describer.device()
        return self._judged(self.describer(torch.from_numpy(pixels).to(device)), labels.to(device))


class ByTuples(PictureTask):
    """Train on tuples of a query, a positive and hard negatives, each picture at its own size."""

    def mine(self, epoch: int) -> list[list[int]]:
        """Return tuples of rows, mined from a pool described with the current weights."""
        draw, shots = np.random.default_rng((self.seed, MINE, epoch)), self.data.training
        pool = rows_of_classes(shots.labels, self.stage.pool, draw)
        vectors = self._vectors(pool)
        labels = np.asarray(shots.labels)[pool]
        if self.stage.loss == "triplet":
            margin = float(self.stage.options["margin"])
            found = hard_triplets(vectors, labels, self.stage.tuples, draw, margin=margin)
            return [[pool[place] for place in one] for one in found]
        positives = self.data.positives if self.data.positives is not None else same_class(shots.labels)
        pairs = queries_with_positives(positives, self.stage.tuples, draw)
        asked = self._vectors([query for query, _ in pairs])
        mined = []
        for (query, positive), vector in zip(pairs, asked, strict=True):
            hard = hard_negatives(vector, shots.labels[query], vectors, labels, self.stage.negatives)
            mined.append([query, positive, *(pool[place] for place in hard)])
        return mined

    def plan(self, epoch: int, mined: list[list[int]]) -> Sequence[list[list[int]]]:
        """Return batches of tuples."""
        size = self.stage.batch
        return [mined[start : start + size] for start in range(0, len(mined), size)]

    def load(self, item: Sequence[list[int]], draw: np.random.Generator) -> tuple[list[int], list[Any]]:
        """Return the lengths of the tuples, and their pictures grouped by size."""
        pictures = [self._picture(row, draw) for one in item for row in one]
        return [len(one) for one in item], grouped(pictures)

    def loss(self, batch: tuple[list[int], list[Any]]) -> Tensor:
        """Return the mean over triplets, or the sum over a tuple's pairs averaged over the tuples."""
        lengths, groups = batch
        descriptors = self.describer.described(groups)
        if self.stage.loss == "triplet":
            return self._judged(descriptors, None, triplet_indices(lengths, descriptors.device))
        return self._judged(descriptors, None, pair_indices(lengths, descriptors.device)) / len(lengths)

    def _picture(self, row: int, draw: np.random.Generator) -> Pixels:
        shots = self.data.training
        if not self.stage.views:
            return shots.pixels(row)
        return self._seen(row, target_size(*shots.sizes[row], shots.profile), draw)

    def _vectors(self, rows: Sequence[int]) -> Any:
        return describe_rows(self.describer, self.data.training, rows, batch=max(self.stage.batch, 8))


TASKS: Mapping[str, type[ByLabels] | type[ByTuples]] = {"labels": ByLabels, "tuples": ByTuples}


def picture_task(trunk: Trunk, stage: Stage, data: Data, *, seed: int) -> ByLabels | ByTuples:
    """Build the task of a stage on a trunk, which is trained in place unless the stage freezes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        describer = DescriberNetwork(trunk, HEADS[stage.head].make(trunk.channels, trunk.stride), frozen=stage.frozen)
        given = {"classes": len(data.training.classes), "channels": trunk.channels} if stage.loss == "arcface" else {}
        loss = LOSSES[stage.loss](**given, **stage.options)
    return TASKS[stage.kind](describer, loss, data, stage, seed=seed)
