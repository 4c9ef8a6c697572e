"""The trained parts of `heads`: of every head and seed, trained unless they are on disk, and the shipped ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from landseer.client.commands.output import console as plain_console
from landseer.export.build import trunk_sha256
from landseer.export.datasets.photograph import Photographs
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
from landseer.export.parts import Parts, read_parts, shipped, write_parts
from landseer.export.training.command import precision_of
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.part_trainers import Training, learned_regions, train_head
from landseer.export.training.trunk_views import TrunkViews, ViewSpec, trunk_views, views_key
from landseer.export.training.two_maps import TWO_MAP, two_map_parts
from landseer.ops.evaluate.attended_rmac import ATTENDED_RMAC, AttendedRMAC
from landseer.ops.evaluate.head_variants import NAMES, SHIPPED, Variant, variant_of, variants
from landseer.ops.progress import bars


@dataclass(frozen=True, kw_only=True)
class BackboneSource:
    """One --backbone on the command line."""

    backbone: str
    weights: Path | None
    views: int
    """Views of each photograph that heads learn from."""
    photographs: int | None
    """Number of photographs that heads learn from, drawn at random; None for all."""

    def learns_from(self, found: Photographs) -> Photographs:
        """Return the photographs that heads learn from, the same for every seed of a head."""
        if self.photographs is None or self.photographs >= len(found.photographs):
            return found
        draw = np.random.default_rng(0)
        rows = np.sort(draw.choice(len(found.photographs), self.photographs, replace=False))
        return replace(found, photographs=tuple(found.photographs[row] for row in rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadParts:
    """The parts of one backbone."""

    source: BackboneSource
    learned: Photographs
    """The photographs that heads learn from."""
    data: str
    """Their data set on the command line."""
    folder: Path
    """For views, states and parts."""

    @cached_property
    def loaded(self) -> Loaded:
        """The trunk with its weights."""
        return BACKBONES[self.source.backbone].load(self.source.weights, "auto")

    def variants(self, heads: Sequence[str], seeds: int) -> Iterator[Variant]:
        """Yield the variants: off the shelf, as shipped for this trunk if any are, and trained with each seed."""
        channels = self.loaded.trunk.channels
        yield from variants(channels, [])
        there = {head: read_parts(path) for head, path in shipped(trunk_sha256(self.loaded)).items()}
        for head, parts in there.items():
            yield variant_of(parts, channels, SHIPPED[head])
        found = there.get("cider")
        if found and ATTENDED_RMAC in heads:
            attended = self._made(ATTENDED_RMAC, 0, lambda: self._attended(found, 0), of="shipped-")
            yield variant_of(attended, channels, f"{NAMES[ATTENDED_RMAC]}, {SHIPPED['cider']}")
        for descriptor in heads:
            if descriptor != "rmac-rpn" or self._proposals.exists():
                yield from (variant_of(self._trained(descriptor, seed), channels) for seed in range(seeds))

    def _trained(self, descriptor: str, seed: int) -> Parts:
        """Return a head, trained with a seed."""
        if descriptor == ATTENDED_RMAC:
            return self._made(descriptor, seed, lambda: self._attended(self._trained("cider", seed), seed))
        if descriptor == TWO_MAP:
            return self._made(descriptor, seed, lambda: self._two_map(seed))
        return self._made(descriptor, seed, lambda: train_head(descriptor, self._training(descriptor, seed)))

    def _made(self, descriptor: str, seed: int, make: Callable[[], Parts], *, of: str = "") -> Parts:
        """Return parts from disk, or make and write them. of: what they were made from, if that is no seed."""
        path = self.folder / "parts" / f"{self._name(f'{of}{descriptor}', seed)}.safetensors"
        if not path.exists():
            made = make()
            write_parts(made, path)
        # As written, in half precision: the vectors are then the same the next time.
        return read_parts(path)

    def _attended(self, cider: Parts, seed: int) -> Parts:
        """Learn the regional whitening of what a trained CiDeR localises."""
        head = AttendedRMAC(self.loaded.trunk.channels)
        cider.fill("head", head.cider)
        tensors = learned_regions(self._training(ATTENDED_RMAC, seed), head.eval())
        learned = ("attention", "regional whitening", "whitening")
        return replace(
            cider, descriptor=ATTENDED_RMAC, learned=learned, tensors=tensors, card={**cider.card, "seed": seed}
        )

    def _two_map(self, seed: int) -> Parts:
        photographs, precision = self.learned.photographs, precision_of(self.source.backbone)
        with bars(console()) as bar:
            task = bar.add_task(f"training {self.source.backbone} {TWO_MAP}, seed {seed}", total=None)
            return two_map_parts(
                self.loaded,
                self.source.backbone,
                photographs,
                seed=seed,
                precision=precision,
                card={"data": self.data},
                report=lambda done, of: bar.update(task, completed=done, total=of),
            )

    def _training(self, descriptor: str, seed: int) -> Training:
        views = self._views  # before the line is printed, because it has a progress bar
        console().print(f"training {self.source.backbone} {descriptor}, seed {seed}")
        return Training(
            loaded=self.loaded,
            backbone=self.source.backbone,
            views=views,
            recipe=LocalisationRecipe(seed=seed),
            folder=self.folder / self._name(descriptor, seed),
            proposals=self._proposals,
            card={"data": self.data},
        )

    def _name(self, descriptor: str, seed: int) -> str:
        return f"{self.source.backbone}-{descriptor}-{seed}-{self._key[:8]}"

    @property
    def _proposals(self) -> Path:
        return self.folder / f"{self.source.backbone}-rpn" / "best.safetensors"

    @cached_property
    def _spec(self) -> ViewSpec:
        return ViewSpec(views=self.source.views)

    @cached_property
    def _key(self) -> str:
        precision = precision_of(self.source.backbone)
        return views_key(self.learned.photographs, trunk_sha256(self.loaded), self._spec, precision)

    @cached_property
    def _views(self) -> TrunkViews:
        with bars(console()) as bar:
            task = bar.add_task(f"views {self.source.backbone}", total=len(self.learned.photographs))
            return trunk_views(
                self.learned.photographs,
                self.loaded.trunk,
                fingerprint=trunk_sha256(self.loaded),
                spec=self._spec,
                folder=self.folder / "views",
                precision=precision_of(self.source.backbone),
                progress=lambda done: bar.advance(task, done),
            )


def console() -> Console:
    """Return the console for progress, on stderr."""
    return plain_console(sys.stderr, pipe_width=None)
