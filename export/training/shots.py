"""Photographs for training, by row: class number, size, and pixels at the served resolution or as views."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.orientation import TURNS
from landseer.ensemble.pictures.pictures import prepare, target_size
from landseer.export.datasets.photograph import Photograph
from landseer.export.training.errors import TrainingError
from landseer.export.training.views import ViewRanges, view

Pixels = NDArray[np.uint8]
_ORIENTATION = 274
AMONG_OTHERS = 0.5
"""Share of views that show the object inside another photograph."""


def profile_of(long_side: int) -> Profile:
    """Return a profile that defines only the size of pictures."""
    sizes = Sizes(channels=1, reduced=1, locals=1, clusters=1, boxes=8, neighbours=1, candidates=1)
    return Profile(backbone="", weights_sha256="", sizes=sizes, long_side=long_side)


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Decodable photographs (see `datasets.readable`), by row.

    Pixels are cached up to `memory` bytes; later changes to files are not noticed.
    """

    photographs: Sequence[Photograph]
    profile: Profile
    memory: int = 2 * 2**30
    """Bytes of pixels to cache."""
    labels: tuple[int, ...] = field(init=False)
    """Class of each row, numbered by sorted class names."""
    classes: tuple[str, ...] = field(init=False)
    sizes: tuple[tuple[int, int], ...] = field(init=False)
    """Width and height in pixels after EXIF rotation."""
    _kept: dict[int, Pixels] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        classes = tuple(sorted({photograph.label for photograph in self.photographs}))
        numbers = {label: number for number, label in enumerate(classes)}
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "labels", tuple(numbers[photograph.label] for photograph in self.photographs))
        object.__setattr__(self, "sizes", tuple(seen_size(photograph.path) for photograph in self.photographs))

    def __len__(self) -> int:
        return len(self.photographs)

    def aspects(self) -> list[float]:
        """Return width / height of each row."""
        return [width / height for width, height in self.sizes]

    def pixels(self, row: int) -> Pixels:
        """Read a photograph at the served size, RGB [H, W, 3]. TrainingError if it is no longer readable."""
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        found = _read(self.photographs[row].path, self.profile)
        # No picture at the served size exceeds this square.
        if len(self._kept) * 3 * self.profile.long_side**2 < self.memory:
            self._kept[row] = found
        return found

    def common_size(self, rows: Sequence[int]) -> tuple[int, int]:
        """Return the width and height that distort some photographs least, by the profile's rule."""
        aspect = float(np.exp(np.mean([np.log(self.sizes[row][0] / self.sizes[row][1]) for row in rows])))
        return target_size(1000 * aspect, 1000.0, self.profile)

    def view(
        self, row: int, size: tuple[int, int], draw: np.random.Generator, ranges: ViewRanges | None = None
    ) -> Pixels:
        """Return a view of a photograph, half of the time inside another. size: width, height → [H, W, 3].

        Views are drawn square and then resized to `size`, so that a photograph of that aspect ratio keeps it.
        """
        among = len(self) > 1 and draw.random() < AMONG_OTHERS
        background = self.pixels(int(draw.integers(len(self)))) if among else None
        seen = view(self.pixels(row), draw, side=self.profile.long_side, background=background, ranges=ranges)
        return np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), np.uint8)

    def digest(self) -> str:
        """Hash a set of photographs: names below their common folder, classes, boxes and file sizes."""
        paths = [photograph.path.absolute() for photograph in self.photographs]
        root = os.path.commonpath([path.parent for path in paths]) if paths else ""
        lines = (
            repr((os.path.relpath(path, root), one.label, one.boxes, path.stat().st_size))
            for path, one in zip(paths, self.photographs, strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def seen_size(path: Path) -> tuple[int, int]:
    """Return width and height after EXIF rotation, from the file's header. TrainingError if it cannot be read."""
    try:
        with Image.open(path) as picture:
            turn = TURNS.get(picture.getexif().get(_ORIENTATION, 1), TURNS[1])
            return turn.size(*picture.size)
    except Exception as error:
        raise TrainingError(f"{path} is no longer readable: {error}") from error


def _read(path: Path, profile: Profile) -> Pixels:
    try:
        data = path.read_bytes()
        return prepare(data, profile=profile, limits=Limits(max_bytes=max(len(data), 1))).pixels
    except (OSError, InvalidInput) as error:
        raise TrainingError(f"{path} is no longer readable: {error}") from error


def grouped(pictures: Iterable[Pixels]) -> list[tuple[list[int], Pixels]]:
    """Stack pictures of equal size. → for each size: their numbers, and their pixels [n, H, W, 3]."""
    members: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
    for number, pixels in enumerate(pictures):
        members.setdefault(pixels.shape, []).append((number, pixels))
    return [([number for number, _ in some], np.stack([pixels for _, pixels in some])) for some in members.values()]
