"""Train the last blocks of a trunk to tell things apart that resemble each other: InfoNCE over views of look-alikes.

A batch holds whole families of drawn covers, so that each cover meets those that resemble it, and photographs: two
views of each. Their R-MAC vectors are whitened as they will be when served, by learned whitening of the untrained
trunk's vectors, before the loss. The distance to the untrained vectors is added to it, for what those already tell
apart. The rest of the trunk is frozen, so the maps of stride 16 stay as they are, and its output is computed once.

Ours; the papers train whole trunks on photographs of landmarks. docs/research/descriptors.md has what it gains.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landseer.export.models.beside import fine_values
from landseer.export.models.pooling import l2n
from landseer.export.models.rmac import cells, grid
from landseer.export.models.trunk import Trunk
from landseer.export.training.heldout import leave_one_out
from landseer.export.training.look_alike_views import EACH, HELD, LEARNING, NO_FAMILY, WHITENING, FrontMaps
from landseer.export.training.losses import supervised_contrastive
from landseer.export.training.task import Group
from landseer.export.training.weights import state_digest
from landseer.export.training.whitening import Whitening, learned_whitening, pairs_within

Rows = NDArray[np.int64]
METHOD = "instance"
STEPS = 100
"""Of an epoch."""
CROPPED = 2
"""Cells by which maps are cut, at random, in training: 64 pixels."""


@dataclass(frozen=True, kw_only=True)
class InstanceRecipe:
    """Options of the training, besides the loop's settings."""

    families: int = 3
    """Families of covers in a batch."""
    photographs: int = 4
    """Photographs in a batch."""
    temperature: float = 0.07
    keep: float = 2.0
    """Weight of the mean cosine distance to the untrained vectors."""
    shrinkage: float = 0.2
    """Of the whitenings, see `learned_whitening`."""
    average: float = 0.03
    """Share of a step in the moving mean of the weights, which is what is kept."""
    seed: int = 0


class InstanceTuning:
    """The `Task` of training the last blocks. The trunk is changed in place."""

    measure = "leave-one-out mAP of held-out covers and photographs, %"

    def __init__(self, maps: FrontMaps, trunk: Trunk, recipe: InstanceRecipe) -> None:
        """maps: of this trunk. WeightsError for a trunk that has no last blocks."""
        self.maps, self.trunk, self.recipe = maps, trunk, recipe
        _, self.back = trunk.split()
        fold_norms(self.back)
        self.learnable = [parameter for module in self.back.modules() for parameter in _learnable(module)]
        self.module: nn.Module = _Still({"back": self.back, "mean": copy.deepcopy(self.back)})
        self.module.requires_grad_(False)
        for parameter in self.learnable:
            parameter.requires_grad_(True)
        self.module.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.origin = state_digest(self.module)
        self.labels = np.arange(len(maps.things)).repeat(EACH)
        self.dims = trunk.channels - fine_values(trunk.channels)
        learning = maps.rows(LEARNING)
        self.first = torch.zeros(len(maps.maps), trunk.channels)
        self.first[torch.from_numpy(learning)] = self._pooled(self.back, learning)
        whitening = self._whitening(self.first[torch.from_numpy(learning)], learning, most=EACH - 1)
        self.mean, self.matrix = torch.tensor(whitening.mean).float(), torch.tensor(whitening.matrix).float()
        self.criterion = supervised_contrastive(temperature=recipe.temperature)

    def about(self) -> Mapping[str, str | int | float]:
        """Return what must be equal for a run to resume, and what an export reads."""
        about = {"method.kind": METHOD, "views": self.maps.key, "first weights": self.origin}
        trunk = {"trunk": f"{self.trunk.backbone} {self.trunk.variant}".strip()}
        return about | trunk | {f"recipe.{name}": value for name, value in asdict(self.recipe).items()}

    def groups(self) -> Sequence[Group]:
        """Return the last blocks' convolutions and biases."""
        return [Group(parameters=self.learnable, decay=False)]

    def mine(self, epoch: int) -> None:
        """Mine nothing: the families are the hard negatives."""

    def plan(self, epoch: int, mined: None) -> Sequence[list[int]]:
        """Return `STEPS` batches of rows: of each thing a view of its first half, and one of the rest."""
        draw = np.random.default_rng((self.recipe.seed, epoch))
        numbers = [n for n, thing in enumerate(self.maps.things) if thing.part == LEARNING]
        families, photographs = dict[int, list[int]](), list[int]()
        for number in numbers:
            found = self.maps.things[number].family
            (photographs if found == NO_FAMILY else families.setdefault(found, [])).append(number)
        return [self._batch(list(families.values()), photographs, draw) for _ in range(STEPS)]

    def _batch(self, families: list[list[int]], photographs: list[int], draw: np.random.Generator) -> list[int]:
        drawn = draw.choice(len(families), min(self.recipe.families, len(families)), replace=False)
        seen = draw.choice(photographs, min(self.recipe.photographs, len(photographs)), replace=False)
        things = np.concatenate([*(families[one] for one in drawn), seen]).astype(np.int64)
        half = EACH // 2
        firsts, seconds = draw.integers(0, half, len(things)), draw.integers(half, EACH, len(things))
        rows: list[int] = np.concatenate([EACH * things + firsts, EACH * things + seconds]).tolist()
        return rows

    def load(self, item: Sequence[int], draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the maps of a batch, cut at random, and their rows."""
        maps = self.maps.maps[np.asarray(item)]
        x, y = draw.integers(0, CROPPED + 1, 2)
        height, width = (size - CROPPED for size in maps.shape[2:])
        return torch.from_numpy(maps[:, :, y : y + height, x : x + width].astype(np.float32)), torch.tensor(item)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return InfoNCE of whitened vectors, and the distance to the untrained ones."""
        self._average()
        maps, rows = batch
        pooled = square_rmac(self.back(maps.to(memory_format=torch.channels_last)), self.trunk.stride)
        whitened = l2n((pooled - self.mean) @ self.matrix.T)
        labels = torch.from_numpy(self.labels[rows.numpy()])
        kept = (1 - (pooled * self.first[rows]).sum(dim=1)).mean()
        loss: Tensor = self.criterion(whitened, labels) + self.recipe.keep * kept
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        """Move the mean towards the weights as the last step left them."""
        steps = self.module.get_buffer("steps")
        share = max(self.recipe.average, 1 / (int(steps) + 1))
        mean, back = self.module.get_submodule("mean"), self.module.get_submodule("back")
        for kept, now in zip(mean.parameters(), back.parameters(), strict=True):
            kept.lerp_(now, share)
        steps += 1

    def describe(self, item: Sequence[int]) -> str:
        """Name a batch."""
        return f"things {', '.join(str(row // EACH) for row in item[:4])} and {max(0, len(item) - 4)} more"

    def validate(self) -> float:
        """Return the leave-one-out mAP of the held-out things by R-MAC of the last map, whitened by the second part."""
        mean, rows, held = self.module.get_submodule("mean"), self.maps.rows(WHITENING), self.maps.rows(HELD)
        whitening = self._whitening(self._pooled(mean, rows), rows, most=1)
        vectors = whitening(self._pooled(mean, held).numpy()).astype(np.float32)
        return leave_one_out(vectors, self.labels[held].tolist())

    def weights(self) -> Mapping[str, Tensor]:
        """Return the trunk with the mean of the trained weights, without its classifier, in half precision.

        Statistics and biases stay in single precision: some are too small or too large for half.
        """
        mean = dict(self.module.get_submodule("mean").named_parameters())
        trained = {id(one): mean[name] for name, one in self.module.get_submodule("back").named_parameters()}
        parameters = dict(self.trunk.named_parameters(remove_duplicate=False))
        of_classifier = {id(one) for one in self.trunk.classifier.parameters()}
        return {
            f"trunk.{name}": _halved(trained.get(id(parameters.get(name)), value))
            for name, value in self.trunk.state_dict().items()
            if id(parameters.get(name)) not in of_classifier
        }

    def _whitening(self, pooled: Tensor, rows: Rows, *, most: int) -> Whitening:
        queries, positives = pairs_within(self.labels[rows], most=most, seed=self.recipe.seed)
        return learned_whitening(pooled.numpy(), queries, positives, dims=self.dims, shrinkage=self.recipe.shrinkage)

    @torch.no_grad()
    def _pooled(self, back: nn.Module, rows: Rows, size: int = 32) -> Tensor:
        """Return the R-MAC vectors of whole maps. → unit [len(rows), C]."""
        found = []
        for start in range(0, len(rows), size):
            maps = torch.from_numpy(self.maps.maps[rows[start : start + size]].astype(np.float32))
            found.append(square_rmac(back(maps.to(memory_format=torch.channels_last)), self.trunk.stride))
        return torch.cat(found)


class _Still(nn.ModuleDict):
    """Modules that stay in evaluation mode: small batches of look-alikes have poor statistics."""

    def train(self, mode: bool = True) -> _Still:
        super().train(False)
        return self


def square_rmac(maps: Tensor, stride: int) -> Tensor:
    """Return R-MAC without whitening of maps [B, C, n, n] of square pictures, quickly. → unit [B, C]."""
    side = stride * maps.shape[-1]
    found = grid(side, side)
    boxes = cells(found.boxes[found.valid], maps, side, side).tolist()
    return l2n(torch.stack([l2n(maps[:, :, y0 : y1 + 1, x0 : x1 + 1].amax((2, 3))) for x0, y0, x1, y1 in boxes]).sum(0))


@torch.no_grad()
def fold_norms(module: nn.Module) -> None:
    """Fold every BatchNorm's scale into the convolution before it, which changes nothing that the module returns.

    Its own scale becomes 1. A step of a convolution's weights is then the same for channels of any scale.
    """
    before: nn.Conv2d | None = None
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d) and before is not None:
            if one.running_mean is None or one.running_var is None:
                raise ValueError("got a BatchNorm without statistics; expected one of a trained trunk")
            scale = one.weight / (one.running_var + one.eps).sqrt()
            before.weight.mul_(scale[:, None, None, None])
            one.bias.sub_(one.running_mean * scale)
            one.running_mean.zero_()
            one.running_var.fill_(1 - one.eps)
            one.weight.fill_(1)
        before = one if isinstance(one, nn.Conv2d) else None if isinstance(one, nn.BatchNorm2d) else before


def _halved(x: Tensor) -> Tensor:
    return x.half() if x.is_floating_point() and x.dim() > 1 else x


def _learnable(module: nn.Module) -> list[nn.Parameter]:
    """Return a convolution's weights, or a BatchNorm's biases."""
    name = "weight" if isinstance(module, nn.Conv2d) else "bias" if isinstance(module, nn.BatchNorm2d) else ""
    return [one for own, one in module.named_parameters(recurse=False) if own == name]
