"""Train parts from photographs: the head, its whitening, and the projections of clusters and local features.

On a frozen trunk, from the maps of views (`trunk_views`). Classes are used only to hold some out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import trunk_sha256, untrained_head
from landseer.export.models.backbone import strongest
from landseer.export.models.cider import CiDeR
from landseer.export.models.pooling import Projection, gem, l2n
from landseer.export.models.rmac import GridRMAC, ProposalRMAC
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.state_dicts import fill
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import read_proposals
from landseer.export.models.trunk import Loaded
from landseer.export.parts import Parts
from landseer.export.training.attending import learned_reduction, pooled
from landseer.export.training.localisation import Localisation, LocalisationRecipe, of_views, projection
from landseer.export.training.loop import Settings
from landseer.export.training.loop import train as run
from landseer.export.training.trunk_views import TrunkViews
from landseer.export.training.watcher import Silent, Watcher
from landseer.export.training.whitening import pca_of, pca_whitening

SAMPLE = 600
"""Photographs for the PCA of regions; each gives dozens of vectors."""
LOCALS_SAMPLE, LOCALS_EACH = 1000, 200
"""Photographs for the PCA of local features, and the number of strongest features taken from each one's views."""
LEARNING_RATE = 1e-3
HALF = 0.5
"""Power of PCA whitening: full whitening would weigh the least varying directions, mostly noise, like all others."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The inputs of a training."""

    loaded: Loaded
    backbone: str
    views: TrunkViews
    recipe: LocalisationRecipe
    folder: Path
    """Folder of state and curves, from which an interrupted training resumes."""
    proposals: Path | None = None
    """Weights of trained region proposals, for heads that pool over them."""
    epochs: int = 1
    watcher: Watcher = field(default_factory=Silent)
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, command and machine, for the card."""


def train(descriptor: str, training: Training) -> Parts:
    """Train a head, a key of `TRAINERS`, and all `PROJECTIONS`. Equal inputs give equal parts."""
    return with_projections(train_head(descriptor, training), training)


def with_projections(parts: Parts, training: Training) -> Parts:
    """Return the parts with all `PROJECTIONS`, learned again."""
    for name in PROJECTIONS:
        parts = with_projection(name, parts, training)
    return parts


def train_head(descriptor: str, training: Training) -> Parts:
    """Train only a head, a key of `TRAINERS`, which is enough for global descriptors."""
    learned, tensors, figures = TRAINERS[descriptor](training)
    return Parts(
        backbone=training.backbone,
        trunk_sha256=trunk_sha256(training.loaded),
        descriptor=descriptor,
        learned=learned,
        tensors=tensors,
        card={**training.card, "seed": training.recipe.seed, "figures": figures},
    )


def with_projection(name: str, parts: Parts, training: Training) -> Parts:
    """Return the parts with one projection, a key of `PROJECTIONS`, learned again."""
    found, told = PROJECTIONS[name](training)
    return replace(
        parts,
        learned=tuple(dict.fromkeys((*parts.learned, name))),
        tensors={**parts.tensors, **_section(name, found.state_dict())},
        card={**parts.card, name: told},
    )


TrainedHead = tuple[tuple[str, ...], dict[str, Tensor], dict[str, float]]


def _cider(training: Training) -> TrainedHead:
    """Train localisation by self-supervision, then learn the FC as whitening of the pooled vectors."""
    head = untrained_head("cider", training.loaded.trunk.channels)
    if not isinstance(head, CiDeR):
        raise TypeError(f"got a {type(head).__name__}; expected CiDeR")
    task = Localisation(training.views, head, training.recipe)
    outcome = run(task, _settings(training), training.folder, resume=_begun(training.folder), watcher=training.watcher)
    head.load_state_dict(load_file(outcome.weights))
    head.cpu().projection = projection(task.whitening())
    figures = {"validation before": outcome.start, "validation": outcome.best}
    return ("attention", "whitening"), _section("head", head.state_dict()), figures


@torch.no_grad()
def _gem(training: Training) -> TrainedHead:
    """Learn the whitening of GeM from all views."""
    pooled = np.concatenate([l2n(gem(maps)).numpy() for maps in _batches(training.views, np.arange(_count(training)))])
    whitening = of_views(pooled, training.views.maps.shape[1], training.recipe.shrinkage)
    return ("whitening",), _section("whitening", projection(whitening).state_dict()), {}


def _rmac(training: Training) -> TrainedHead:
    """PCA-whiten the vectors of the grid's regions."""
    trunk = training.loaded.trunk
    head = GridRMAC(trunk.channels, stride=trunk.stride)
    return ("regional whitening", "whitening"), learned_regions(training, head), {}


def _rmac_rpn(training: Training) -> TrainedHead:
    """PCA-whiten the vectors of proposals trained by `landseer train rpn`."""
    if training.proposals is None:
        raise WeightsError("rmac-rpn needs trained region proposals; make them with: landseer train rpn DATA --out DIR")
    trunk = training.loaded.trunk
    head = ProposalRMAC(trunk.channels, RegionProposals(trunk.channels), stride=trunk.stride).eval()
    found, note = read_proposals(training.proposals, trunk_sha256(training.loaded))
    if note:
        print(f"{training.proposals} {note}: it must have been trained on this trunk", file=sys.stderr)
    fill(head.proposer, found, training.proposals)
    return ("regional whitening", "region proposals", "whitening"), learned_regions(training, head), {}


class Regional(Protocol):
    """A head that pools regions and whitens each."""

    projection: nn.Module
    """The regional whitening."""

    def regions(self, feature_map: Tensor, height: int, width: int) -> Tensor:
        """Return the unit vectors of the regions of all pictures, before their whitening. → [R', C]."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return all weights."""
        ...


@torch.no_grad()
def learned_regions(training: Training, head: Regional) -> dict[str, Tensor]:
    """PCA-whiten the vectors of a head's regions, from the views of some photographs. → the head's section."""
    views = training.views
    vectors = [head.regions(maps, views.side, views.side).numpy() for maps in _batches(views, _sample(training))]
    head.projection = projection(pca_whitening(np.concatenate(vectors), power=HALF))
    return _section("head", head.state_dict())


TRAINERS: dict[str, Callable[[Training], TrainedHead]] = {
    "cider": _cider,
    "gem": _gem,
    "rmac": _rmac,
    "rmac-rpn": _rmac_rpn,
}


def _reduction(training: Training) -> tuple[Projection, str]:
    """Learn the whitening of co-attention's vectors from all views, see `attending`."""
    channels, each = training.loaded.trunk.channels, training.views.maps.shape[1]
    views = pooled(_batches(training.views, np.arange(_count(training))), channels)
    sizes, shrinkage = Sizes(channels=channels), training.recipe.shrinkage
    found = learned_reduction(views, each, sizes=sizes, shrinkage=shrinkage)
    told = f"learned whitening of {len(views.queries):,} query vectors and the clusters they attend to, "
    return found, f"{told}of {_count(training):,} photographs, shrinkage {shrinkage:g}"


@torch.no_grad()
def _locals(training: Training) -> tuple[Projection, str]:
    """Learn the PCA of unit local features from the strongest ones of each view, as serving keeps those.

    The papers' PCA only rotates. With half whitening more nearest neighbours are of the same photograph: 29.0% instead
    of 27.9%, on views of 150 photographs of held-out classes (default trunk; 31.0% without reduction).
    """
    sizes, rows = Sizes(channels=training.loaded.trunk.channels), _sample(training, LOCALS_SAMPLE)
    count, total = 0, np.zeros(sizes.channels)
    products = np.zeros((sizes.channels, sizes.channels))
    for maps in _batches(training.views, rows):
        features = _strong(maps, max(1, LOCALS_EACH // training.views.maps.shape[1]))
        count, total = count + len(features), total + features.sum(axis=0)
        products += features.T @ features
    mean = total / count
    found = pca_of(mean, products / count - np.outer(mean, mean), dims=sizes.local, power=HALF)
    return projection(found), f"half-whitening PCA of {count:,} local features of {len(rows):,} photographs"


def _strong(maps: Tensor, each: int) -> NDArray[np.float64]:
    """Return the `each` strongest local features of maps [B, C, h, w]. → unit [≤ B · each, C]."""
    features, _, _, valid = strongest(maps.flatten(2).transpose(1, 2), each)
    return np.asarray(l2n(features)[valid > 0].double().numpy(), np.float64)


PROJECTIONS: dict[str, Callable[[Training], tuple[Projection, str]]] = {"reduction": _reduction, "locals": _locals}
"""Parts of any head, learned separately: each returns the projection and its text for the card."""


def _settings(training: Training) -> Settings:
    return Settings(
        epochs=training.epochs,
        learning_rate=LEARNING_RATE,
        optimiser="adamw",
        weight_decay=1e-5,
        seed=training.recipe.seed,
        checkpoint_every=20,
    )


def _begun(folder: Path) -> bool:
    return (folder / "state.pt").exists()


def _sample(training: Training, most: int = SAMPLE) -> NDArray[np.int64]:
    draw = np.random.default_rng(training.recipe.seed)
    return np.sort(draw.permutation(_count(training))[:most])


def _count(training: Training) -> int:
    return len(training.views.labels)


def _batches(views: TrunkViews, rows: NDArray[np.int64], size: int = 16) -> Iterable[Tensor]:
    """Yield the maps of photographs [≤ size · V, C, h, w]."""
    for start in range(0, len(rows), size):
        yield views.batch(rows[start : start + size])


def _section(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value.detach().clone() for key, value in state.items()}
