"""From a backbone's name to the five modules, with heads that are seeded until they are trained."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from landseer.ensemble.contracts import Sizes
from landseer.ensemble.profile import Profile
from landseer.export.models.backbone import Backbone
from landseer.export.models.cluster import Clustering
from landseer.export.models.coattention import CoAttention
from landseer.export.models.detector import AttentionRegions
from landseer.export.models.lattqe import LAttQE
from landseer.export.models.pooling import Projection
from landseer.export.models.trunks import BACKBONES, Stride

REDUCTION_SEED, LATTQE_SEED = 1, 2

UNTRAINED = {
    "attention": "mean channel activation, min-max; it does not shape the descriptor",
    "whitening": "identity",
    "reduction": f"random orthonormal rows, seed {REDUCTION_SEED}",
    "lattqe": f"random weights, seed {LATTQE_SEED}; never used unless a request says allow_untrained",
}
"""Parts that no training has shaped yet, and what stands in for them."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """All modules of one export, in evaluation mode, and what is to be said of them."""

    modules: dict[str, nn.Module]
    profile: Profile
    source: str
    """Where the trunk's weights came from."""


def build(*, backbone: str, weights: Path | None, stride: Stride, long_side: int, version: str) -> Networks:
    """Load the trunk and seed the heads. WeightsError if the weights do not fit."""
    loaded = BACKBONES[backbone].load(weights, stride)
    sizes = Sizes(channels=loaded.trunk.channels)
    reduction = Projection.untrained(sizes.channels, sizes.reduced, seed=REDUCTION_SEED)
    whitening = Projection.untrained(sizes.channels, sizes.channels, seed=0)
    modules: dict[str, nn.Module] = {
        "backbone": Backbone(trunk=loaded.trunk, sizes=sizes, whitening=whitening, reduction=reduction),
        "detector": AttentionRegions(sizes=sizes),
        "cluster": Clustering(sizes=sizes, reduction=reduction),
        "lattqe": LAttQE.untrained(sizes, seed=LATTQE_SEED),
        "coattention": CoAttention(sizes=sizes),
    }
    profile = Profile(
        backbone=backbone,
        weights_sha256=_fingerprint(modules["backbone"], loaded.variant),
        sizes=sizes,
        long_side=long_side,
        untrained=tuple(UNTRAINED),
        version=version,
    )
    return Networks(modules={k: m.eval() for k, m in modules.items()}, profile=profile, source=loaded.source)


def _fingerprint(module: nn.Module, variant: str) -> str:
    """Hash every weight that shapes a stored vector; `variant` tells networks that share their weights' names."""
    digest = hashlib.sha256(variant.encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
