"""The pictures that benchmarks send: real photographs in a mix of shapes, as in real traffic."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.photographs import photographs

ASPECTS = ((3, 4), (4, 3), (1, 1), (2, 3))
"""Height : width. With a long side of 640 they become 480x640, 640x480, 640x640 and 416x640."""
EACH = 3
"""Photographs of each shape."""
LONG_SIDE = 1600
"""Longer side of the encoded pictures in pixels: clients send larger pictures than the backbone takes."""
QUALITY = 90


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One request in both forms."""

    id: str
    data: bytes
    """JPEG, as a client sends it to the orchestrator."""
    pixels: NDArray[np.uint8]
    """[1, H, W, 3], decoded and resized by the profile's rule, as Triton takes it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that the backbone sees."""
        return self.pixels.shape[1], self.pixels.shape[2]


def pictures(profile: Profile) -> list[Picture]:
    """Return `EACH` photographs of every shape, alternating between the shapes."""
    return [_picture(f"bench/{number:02d}", pixels, profile) for number, pixels in enumerate(_cut())]


def sequence(some: Sequence[Picture], count: int, start: int = 0) -> list[Picture]:
    """Return `count` requests, cycling through the pictures from `start`."""
    return [some[(start + place) % len(some)] for place in range(count)]


def _cut() -> Iterator[NDArray[np.uint8]]:
    """Yield the middle of photographs, cropped to the aspect ratios in turn."""
    originals = list(photographs())
    for number in range(EACH * len(ASPECTS)):
        pixels = originals[number % len(originals)]
        yield middle(pixels, ASPECTS[number % len(ASPECTS)])


def middle(pixels: NDArray[np.uint8], aspect: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the largest part of pixels [H, W, 3] around its centre whose height to width is `aspect`."""
    height, width = pixels.shape[:2]
    unit = min(height / aspect[0], width / aspect[1])
    h, w = int(unit * aspect[0]), int(unit * aspect[1])
    y, x = (height - h) // 2, (width - w) // 2
    return pixels[y : y + h, x : x + w]


def _picture(id: str, pixels: NDArray[np.uint8], profile: Profile) -> Picture:
    data = _encoded(pixels)
    return Picture(id=id, data=data, pixels=prepare(data, profile=profile).pixels[None])


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    image, file = Image.fromarray(pixels), io.BytesIO()
    zoom = LONG_SIDE / max(image.size)
    size = (round(image.width * zoom), round(image.height * zoom))
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
