"""Views of drawn covers and of photographs, and what the frozen part of a trunk makes of them, kept on disk in blocks.

The photographs are cut into three parts: to learn from, to learn a whitening from, and to validate on. Covers show, and
lie before, photographs of their own part alone, so that nothing of a validation is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from landseer.export.datasets.photograph import Photograph
from landseer.export.models.trunk import Trunk
from landseer.export.training.camera import CLOSE, photographed, scanned
from landseer.export.training.errors import TrainingError
from landseer.export.training.look_alikes import MEMBERS, Pixels, family
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.trunk_views import pixel_runner
from landseer.export.training.views import ViewRanges, view

EACH = 4
"""Views of a thing: of a cover a scan and three photographs."""
SIDE = 384
"""Side of a view in pixels."""
SHARES = (0.6, 0.2, 0.2)
"""Of the photographs, by part."""
FAMILIES, PHOTOGRAPHS = (300, 55, 40), (600, 120, 100)
"""Families of covers by part, and most photographs that are seen in views."""
LEARNING, WHITENING, HELD = range(3)
FEWEST = 50
"""Fewest photographs."""
NO_FAMILY = -1
CLEAN = ViewRanges(crop=(0.85, 1.0), rotation=4.0, perspective=0.04)
BLOCK = 20
"""Things between two writes to disk."""
DRAWN = "1"
"""Changes when the same numbers draw other pictures."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A cover or a photograph."""

    part: int
    family: int
    """Number of its family, over all parts; NO_FAMILY for photographs."""
    place: int
    """Of a cover in its family, of a photograph in its part."""


class LookAlikes:
    """Things and their views, by number."""

    def __init__(
        self,
        photographs: Sequence[Photograph],
        *,
        seed: int,
        families: tuple[int, int, int] = FAMILIES,
        most: tuple[int, int, int] = PHOTOGRAPHS,
    ) -> None:
        """families, most: families and most photographs of each part. TrainingError for too few photographs."""
        if len(photographs) < FEWEST:
            raise TrainingError(f"got {len(photographs)} photographs; expected at least {FEWEST}, of many things")
        self.shots = Shots(photographs=photographs, profile=profile_of(SIDE), memory=2**28)
        self.seed = seed
        self._drawn: tuple[int, list[Pixels]] = (NO_FAMILY, [])
        order = np.random.default_rng(seed).permutation(len(photographs))
        cuts = np.round(np.cumsum(SHARES[:-1]) * len(order)).astype(int)
        self.rows = np.split(order, cuts)
        self.things = _things(families, [min(n, len(rows)) for n, rows in zip(most, self.rows, strict=True)])

    @property
    def covers(self) -> int:
        """How many of the things are covers."""
        return sum(thing.family != NO_FAMILY for thing in self.things)

    def views(self, number: int) -> list[Pixels]:
        """Draw the views of a thing. → `EACH` of [SIDE, SIDE, 3]."""
        thing = self.things[number]
        draw = np.random.default_rng((self.seed, 1, number))
        if thing.family == NO_FAMILY:
            return self._of_photograph(thing, draw)
        cover = self._family(thing.part, thing.family)[thing.place]
        shots = [photographed(cover, draw, side=SIDE, background=self._any(thing.part, draw)) for _ in range(EACH - 1)]
        return [scanned(cover, draw, side=SIDE), *shots]

    def _family(self, part: int, number: int) -> list[Pixels]:
        """Draw a family, unless it is the last one that was drawn: its covers follow each other."""
        if self._drawn[0] != number:
            self._drawn = number, family(_seed(self.seed, number), lambda draw: self._any(part, draw))
        return self._drawn[1]

    def _of_photograph(self, thing: Thing, draw: np.random.Generator) -> list[Pixels]:
        pixels = self.shots.pixels(int(self.rows[thing.part][thing.place]))
        height, width = pixels.shape[:2]
        share = draw.uniform(0.6, 1.0)
        h, w = max(int(height * share), 8), max(int(width * share), 8)
        x, y = int(draw.integers(0, max(width - w, 0) + 1)), int(draw.integers(0, max(height - h, 0) + 1))
        part = np.ascontiguousarray(pixels[y : y + h, x : x + w])
        return [
            view(pixels, draw, side=SIDE, ranges=CLEAN),
            view(pixels, draw, side=SIDE),
            view(pixels, draw, side=SIDE, background=self._any(thing.part, draw)),
            photographed(part, draw, side=SIDE, background=self._any(thing.part, draw), extent=CLOSE),
        ]

    def _any(self, part: int, draw: np.random.Generator) -> Pixels:
        return self.shots.pixels(int(draw.choice(self.rows[part])))

    def key(self, fingerprint: str, precision: str) -> str:
        """Identify photographs, draws, trunk and precision."""
        told = f"{DRAWN} {fingerprint} {precision} {self.shots.digest()} {SIDE} {self.seed} {self.things}"
        return hashlib.sha256(told.encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontMaps:
    """What the frozen part makes of the views, `EACH` of a thing in turn."""

    maps: NDArray[np.float16]
    """[N · EACH, C, h, w]."""
    things: tuple[Thing, ...]
    """The N things."""
    key: str

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the rows of the maps of a part."""
        numbers = np.flatnonzero([thing.part == part for thing in self.things])
        return (EACH * numbers[:, None] + np.arange(EACH)).ravel()


def front_maps(
    things: LookAlikes,
    trunk: Trunk,
    *,
    fingerprint: str,
    precision: str,
    folder: Path,
    progress: Callable[[int], None],
) -> FrontMaps:
    """Return the maps of all views; blocks on disk are not computed again.

    fingerprint: of the trunk's weights. precision: "f32" or "bf16". progress: called with the number of things done
    since the last call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key, blocks = things.key(fingerprint, precision), list[NDArray[np.float16]]()
    run: Callable[[Pixels], list[NDArray[np.float16]]] | None = None
    for start in range(0, len(things.things), BLOCK):
        numbers = range(start, min(start + BLOCK, len(things.things)))
        file = folder / f"{key}-{start}.npy"
        if not file.exists():
            run = run or pixel_runner(_Front(trunk), precision, ["front"])
            found = np.concatenate([run(np.stack(things.views(number)))[0] for number in numbers])
            staged = file.with_suffix(".part.npy")
            np.save(staged, found)
            staged.replace(file)
        blocks.append(np.load(file))
        progress(len(numbers))
    return FrontMaps(maps=np.concatenate(blocks), things=things.things, key=key)


class _Front(nn.Module):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, (self.front, _) = trunk, trunk.split()

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.front((image.permute(0, 3, 1, 2).float() - self.trunk.mean) / self.trunk.std),)


def _things(families: Sequence[int], photographs: Sequence[int]) -> tuple[Thing, ...]:
    found, first = list[Thing](), 0
    for part, (count, most) in enumerate(zip(families, photographs, strict=True)):
        found += [
            Thing(part=part, family=first + number, place=place) for number in range(count) for place in range(MEMBERS)
        ]
        found += [Thing(part=part, family=NO_FAMILY, place=place) for place in range(most)]
        first += count
    return tuple(found)


def _seed(seed: int, family_number: int) -> int:
    return int(np.random.SeedSequence((seed, 2, family_number)).generate_state(1)[0])
