"""Pictures to index and to search for: parts of the photographs that the scikit-image wheel carries."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landseer.export.photographs import photographs

WIDTH, HEIGHT = 320, 64
"""Low and wide: described ten times as fast as a whole photograph."""


def pictures(count: int) -> list[bytes]:
    """Return PNG files of different parts, evenly chosen; no two overlap by more than half. ValueError for too many."""
    every = list(_parts())
    if count > len(every):
        raise ValueError(f"asked for {count} pictures; the photographs have {len(every)} parts")
    return [_encoded(every[number * len(every) // count]) for number in range(count)]


def _parts() -> Iterator[NDArray[np.uint8]]:
    for pixels in photographs():
        for top in range(0, pixels.shape[0] - HEIGHT, HEIGHT // 2):
            for left in range(0, pixels.shape[1] - WIDTH, WIDTH // 2):
                yield pixels[top : top + HEIGHT, left : left + WIDTH]


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
