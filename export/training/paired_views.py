"""Pairs of pictures of one thing, to learn from what a descriptor should overlook: views of photographs, flat targets.

Flat targets teach what photographs of produce cannot: that print and its lines tell things apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.export.datasets.photograph import Photograph
from landseer.export.training.flat_targets import flat_target, pictured
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.views import Pixels, view

EACH = 2
"""Pictures of a thing: the second is before another photograph."""
PHOTOGRAPHS, TARGETS = 2000, 1000
"""Most photographs that are seen in views, and drawn flat targets."""
SIDE = 448
"""Side of a picture in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedViews:
    """Pictures by place, `EACH` of a thing in turn: first of photographs, then of drawn targets."""

    shots: Shots
    """The photographs; they are backgrounds and parts of targets, too."""
    rows: NDArray[np.int64]
    """Those that are seen in views."""
    targets: int
    seed: int

    def __len__(self) -> int:
        return EACH * (len(self.rows) + self.targets)

    @property
    def things(self) -> NDArray[np.int64]:
        """The thing that each picture shows, by number."""
        return np.arange(len(self) // EACH).repeat(EACH)

    def __getitem__(self, place: int) -> Pixels:
        """Draw a picture, square, RGB."""
        thing, number = divmod(place, EACH)
        draw = np.random.default_rng((self.seed, 0, place))
        behind = self.shots.pixels(int(draw.integers(len(self.shots)))) if number else None
        side = self.shots.profile.long_side
        if thing < len(self.rows):
            return view(self.shots.pixels(int(self.rows[thing])), draw, side=side, background=behind)
        return pictured(self._target(thing - len(self.rows)), draw, side=side, background=behind)

    def _target(self, number: int) -> Pixels:
        draw = np.random.default_rng((self.seed, 1, number))
        return flat_target(int(draw.integers(2**31)), self.shots.pixels(int(draw.integers(len(self.shots)))))


def paired_views(
    photographs: Sequence[Photograph], *, seed: int, most: int = PHOTOGRAPHS, targets: int = TARGETS
) -> PairedViews:
    """Return pairs from readable photographs, at most `most` of them drawn at random, and of drawn targets."""
    shots = Shots(photographs=photographs, profile=profile_of(SIDE))
    rows = np.random.default_rng(seed).permutation(len(shots))[:most]
    return PairedViews(shots=shots, rows=rows, targets=targets, seed=seed)
