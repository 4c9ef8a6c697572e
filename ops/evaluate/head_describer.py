"""Pooled vectors by a backbone and the head that comes with it, at the scales of a server, before the whitening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from landseer.export.build import Wanted, find_parts, fingerprint, trunk_sha256
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.views import Pixels
from landseer.ops.evaluate.head_variants import Variant, as_served, variants
from landseer.ops.evaluate.head_vectors import MAPS, Run, Vectors, level


@dataclass(frozen=True, kw_only=True, eq=False)
class Describer:
    """A backbone and its head, at the scales of a server."""

    variant: Variant
    load: Callable[[], Run]
    """Prepares the trunk."""
    key: str
    """Identifies what pooled vectors depend on."""
    how: str
    """Backbone and descriptor, for people."""

    @classmethod
    def of(cls, backbone: str, weights: Path | None) -> Describer:
        """Load them, with the trained parts that come with Landseer. WeightsError."""
        loaded, variant = _loaded(backbone, weights)
        made = as_served(variant)
        key = f"{trunk_sha256(loaded)} {fingerprint(made.head, type(made.head).__name__)} {made.scales}"
        load = partial(maps_runner, loaded.trunk, precision_of(backbone), MAPS)
        return cls(variant=made, load=load, key=key, how=f"{backbone}, {variant.name}")

    @cached_property
    def run(self) -> Run:
        """The trunk; preparing it takes seconds, for nothing if all pictures are described already."""
        return self.load()

    def __call__(self, pixels: Pixels) -> Vectors:
        """Return the pooled vector [P] of a picture [H, W, 3], sides multiples of 32, before its whitening."""
        levels = {scale: level(pixels[None], scale, self.run) for scale in self.variant.scales}
        with torch.inference_mode():
            return np.array(self.variant.pooled_pyramid(levels)[0].numpy(), np.float32)


def _loaded(backbone: str, weights: Path | None) -> tuple[Loaded, Variant]:
    """Return the trunk, and the head with the trained parts that come with Landseer."""
    loaded = BACKBONES[backbone].load(weights, "auto")
    trained = find_parts(loaded, Wanted(backbone=backbone, weights=weights))
    chosen = list(variants(loaded.trunk.channels, [trained] if trained else []))
    return loaded, chosen[-1] if trained else chosen[0]
