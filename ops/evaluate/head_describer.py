"""Pooled vectors by a trunk and its head, at the scales of a server, before the whitening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from landseer.export.build import Descriptor, Wanted, fingerprint, load_descriptor, trunk_sha256
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.views import Pixels
from landseer.ops.evaluate.head_variants import BASELINE, NAMES, Variant
from landseer.ops.evaluate.head_vectors import MAPS, Run, Vectors, level


@dataclass(frozen=True, kw_only=True, eq=False)
class Describer:
    """A trunk and its head, at the scales of a server."""

    variant: Variant
    learned_whitening: bool
    """Whether the whitening is of trained parts, so that it learned from photographs such as one trains on."""
    load: Callable[[], Run]
    """Prepares the trunk."""
    key: str
    """Identifies what pooled vectors depend on."""
    how: str
    """Backbone, descriptor and their files, for people."""
    sha256: str
    """Of the descriptor that an export serves."""

    @classmethod
    def of(cls, wanted: Wanted) -> Describer:
        """Load what an export with these options serves. WeightsError if weights or parts do not fit."""
        found = load_descriptor(wanted)
        made = Variant(name=_name(found), seed=None, head=found.head, whitening=found.whitening, scales=found.scales)
        files = [f", {what} {file}" for what, file in (("weights", wanted.weights), ("parts", wanted.parts)) if file]
        return cls(
            variant=made,
            learned_whitening=found.parts is not None and bool(found.parts.section("whitening")),
            load=partial(maps_runner, found.loaded.trunk, precision_of(wanted.backbone), MAPS),
            key=f"{trunk_sha256(found.loaded)} {fingerprint(made.head, type(made.head).__name__)} {made.scales}",
            how=f"{wanted.backbone}, {made.name}{''.join(files)}",
            sha256=found.sha256,
        )

    @cached_property
    def run(self) -> Run:
        """The trunk; preparing it takes seconds, for nothing if all pictures are described already."""
        return self.load()

    def __call__(self, pixels: Pixels) -> Vectors:
        """Return the pooled vector [P] of a picture [H, W, 3], sides multiples of 32, before its whitening."""
        levels = {scale: level(pixels[None], scale, self.run) for scale in self.variant.scales}
        with torch.inference_mode():
            return np.array(self.variant.pooled_pyramid(levels)[0].numpy(), np.float32)


def _name(found: Descriptor) -> str:
    """Name a descriptor and what is trained of it, for people."""
    if found.loaded.checkpoint is not None:
        return "the checkpoint's own GeM"
    if found.loaded.trained is not None:
        return f"{found.kind}, trained with the trunk"
    if found.parts is not None and (found.parts.section("head") or found.parts.section("whitening")):
        return NAMES[found.kind]
    return BASELINE if found.kind == "gem" else f"{found.kind}, untrained"
