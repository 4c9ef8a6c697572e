"""Variants of the descriptor: each is a head followed by a whitening."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from landseer.export.build import fingerprint, untrained_head
from landseer.export.models.heads import GeMHead
from landseer.export.models.pooling import Projection
from landseer.export.models.trunks import Trunk
from landseer.export.parts import Parts

BASELINE = "GeM off the shelf"
NAMES = {
    "gem": "GeM + learned whitening",
    "rmac": "R-MAC grid + regional whitening",
    "rmac-rpn": "R-MAC + RPN + regional whitening",
    "cider": "CiDeR",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One way from a feature map to a descriptor."""

    name: str
    seed: int | None
    """Seed of its training; None if untrained."""
    head: nn.Module
    whitening: Projection

    @property
    def fingerprint(self) -> str:
        """Identifies what its vectors depend on, besides the trunk."""
        whitening = fingerprint(self.whitening, "")
        return hashlib.sha256(f"{fingerprint(self.head, type(self.head).__name__)}{whitening}".encode()).hexdigest()

    def describe(self, feature_map: Tensor, height: int, width: int) -> Tensor:
        """Return the unit descriptor [C] of a feature map [1, C, h, w] of a picture of height x width pixels."""
        descriptor: Tensor = self.whitening(self.head(feature_map, height, width)[0])[0]
        return descriptor


def variants(channels: int, trained: Sequence[Parts]) -> Iterator[Variant]:
    """Yield the untrained variants, then the trained ones."""
    identity = Projection.untrained(channels, channels, seed=0)
    yield Variant(name=BASELINE, seed=None, head=GeMHead(channels).eval(), whitening=identity)
    grid = untrained_head("rmac", channels)
    yield Variant(name="R-MAC grid off the shelf", seed=None, head=grid.eval(), whitening=identity)
    for parts in trained:
        head = untrained_head(parts.descriptor, channels)
        whitening = Projection.untrained(channels, channels, seed=0)
        parts.fill("head", head)
        parts.fill("whitening", whitening)
        yield Variant(name=NAMES[parts.descriptor], seed=int(parts.card["seed"]), head=head.eval(), whitening=whitening)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a descriptor."""

    parameters: int
    """Parameters of trunk, head and whitening."""
    gflops: float
    """10⁹ operations per picture; a multiplication and an addition count as two."""


@torch.no_grad()
def cost(variant: Variant, trunk: Trunk, *, side: int) -> Cost:
    """Count the operations that torch runs for one square picture of `side` pixels."""
    pixels = torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        variant.describe(trunk(pixels), side, side)
    sizes = (sum(p.numel() for p in _weights(m)) for m in (trunk.features, variant.head, variant.whitening))
    return Cost(parameters=sum(sizes), gflops=counter.get_total_flops() / 1e9)


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, and the buffers of projections unless they are the identity: those are weights, too."""
    yield from module.parameters()
    for part in module.modules():
        if isinstance(part, Projection) and not torch.equal(part.matrix, torch.eye(len(part.matrix))):
            yield from (part.mean, part.matrix)
