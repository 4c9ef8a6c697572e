"""Variants of the descriptor: each is a head at one or several scales, followed by a whitening."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from landseer.export.build import fingerprint, untrained_head
from landseer.export.models.backbone import GLOBAL_SCALES, LOCAL_SCALES, SCALE_UNIT, multi_scale, resized
from landseer.export.models.beside import RMACBesideGeM
from landseer.export.models.cider import CiDeR
from landseer.export.models.heads import HEADS, GeMHead
from landseer.export.models.pooling import Projection
from landseer.export.models.trunk import Trunk
from landseer.export.parts import Parts
from landseer.ops.evaluate.attended_rmac import ATTENDED_RMAC, AttendedRMAC

ONE_SCALE = (SCALE_UNIT,)
BASELINE = "GeM off the shelf"
SHIPPED = {"cider": "CiDeR as shipped", "two-map": "two maps as shipped"}
NAMES = {
    "gem": "GeM + learned whitening",
    "rmac": "R-MAC grid + regional whitening",
    "rmac-rpn": "R-MAC + RPN + regional whitening",
    "cider": "CiDeR",
    "two-map": "R-MAC grid beside GeM of stride 16, whitened apart",
    ATTENDED_RMAC: "CiDeR's attention + R-MAC grid + regional whitening",
}


class Level(NamedTuple):
    """The maps of a picture at one scale."""

    last: Tensor
    """[1, C, h, w]."""
    fine: Tensor
    """[1, F, h', w']."""
    height: int
    """Of the resized picture, in pixels."""
    width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One way from feature maps to a descriptor."""

    name: str
    seed: int | None
    """Seed of its training; None if untrained."""
    head: nn.Module
    whitening: nn.Module
    scales: tuple[int, ...] = ONE_SCALE
    """The scales of the picture that it pools, in units of 1/`SCALE_UNIT`."""

    @property
    def fingerprint(self) -> str:
        """Identifies what its vectors depend on, besides the trunk."""
        scales = "" if self.scales == ONE_SCALE else f" {self.scales}"
        whitening = f"{fingerprint(self.whitening, '')}{scales}"
        return hashlib.sha256(f"{fingerprint(self.head, type(self.head).__name__)}{whitening}".encode()).hexdigest()

    def describe(self, level: Level) -> Tensor:
        """Return the unit descriptor [C] of a picture at one scale."""
        descriptor: Tensor = self.whitening(self.pooled(level)[0])[0]
        return descriptor

    def describe_pyramid(self, levels: Mapping[int, Level]) -> Tensor:
        """Return the unit descriptor [C] of a picture from its levels by scale, pooled as a server does."""
        descriptor: Tensor = self.whitening(self.pooled_pyramid(levels))[0]
        return descriptor

    def pooled_pyramid(self, levels: Mapping[int, Level]) -> Tensor:
        """Return what the whitening takes, [1, D], from the levels of a picture by scale."""
        if self.scales == ONE_SCALE:
            return self.pooled(levels[SCALE_UNIT])[0]
        return multi_scale([self.pooled(levels[scale])[0] for scale in self.scales])

    @property
    def two_maps(self) -> bool:
        """Whether its head takes the fine map, too."""
        return isinstance(self.head, RMACBesideGeM)

    def pooled(self, level: Level) -> tuple[Tensor, Tensor]:
        """Return the head's vector [1, D], before the whitening, and attention [1, h, w]."""
        maps = (level.last, level.fine) if self.two_maps else (level.last,)
        pooled: tuple[Tensor, Tensor] = self.head(*maps, level.height, level.width)
        return pooled


def variants(channels: int, trained: Sequence[Parts]) -> Iterator[Variant]:
    """Yield the untrained variants, then the trained ones, all at one scale."""
    identity = Projection.untrained(channels, channels, seed=0)
    yield Variant(name=BASELINE, seed=None, head=GeMHead(channels).eval(), whitening=identity)
    grid = untrained_head("rmac", channels)
    yield Variant(name="R-MAC grid off the shelf", seed=None, head=grid.eval(), whitening=identity)
    for parts in trained:
        yield variant_of(parts, channels)


def variant_of(parts: Parts, channels: int, name: str | None = None) -> Variant:
    """Return trained parts as a variant at one scale. name: by default that of the kind of head."""
    attended, fine = parts.descriptor == ATTENDED_RMAC, parts.tensors.get("whitening.fine.mean")
    made = AttendedRMAC(channels) if attended else untrained_head(parts.descriptor, channels)
    kind = HEADS["rmac" if attended else parts.descriptor]
    whitening = kind.whitening(channels, channels if fine is None else len(fine))
    parts.fill("head", made)
    parts.fill("whitening", whitening)
    found = name or NAMES[parts.descriptor]
    return Variant(name=found, seed=int(parts.card["seed"]), head=made.eval(), whitening=whitening)


def as_served(variant: Variant) -> Variant:
    """Return a variant at the scales that a server pools for its head."""
    attends = isinstance(variant.head, (CiDeR, AttendedRMAC))
    return replace(variant, scales=LOCAL_SCALES if attends else GLOBAL_SCALES)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a descriptor."""

    parameters: int
    """Parameters of trunk, head and whitening."""
    gflops: float
    """10⁹ operations per picture; a multiplication and an addition count as two."""


@torch.no_grad()
def cost(variant: Variant, trunk: Trunk, *, side: int, scales: tuple[int, ...] = ONE_SCALE) -> Cost:
    """Count the operations that torch runs for one square picture of `side` pixels.

    scales: those at which the trunk runs; a server's runs at all `LOCAL_SCALES`, whatever the head pools.
    """
    pixels = torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        pictures = {scale: resized(pixels, scale) for scale in scales}
        maps = {scale: trunk.maps(picture) for scale, picture in pictures.items()}
        levels = {scale: Level(one.last, one.fine, *pictures[scale].shape[2:]) for scale, one in maps.items()}
        variant.describe_pyramid(levels)
    sizes = (sum(p.numel() for p in _weights(m)) for m in (trunk.features, variant.head, variant.whitening))
    return Cost(parameters=sum(sizes), gflops=counter.get_total_flops() / 1e9)


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, and the buffers of projections unless they are the identity: those are weights, too."""
    yield from module.parameters()
    for part in module.modules():
        if isinstance(part, Projection) and not torch.equal(part.matrix, torch.eye(len(part.matrix))):
            yield from (part.mean, part.matrix)
