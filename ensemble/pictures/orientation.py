"""EXIF orientation: transform between stored pixels and the displayed picture.

Pillow's `ImageOps.exif_transpose` transforms whole images only; we also map regions and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An orientation: optionally swap the axes of stored pixels, then mirror the result."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Swap width and height if the axes are swapped; its own inverse."""
        return (height, width) if self.swap else (width, height)

    def stored(self, seen: Box, width: int, height: int) -> Box:
        """Return a displayed rectangle in stored pixels. width, height: of the displayed picture."""
        left, top, right, bottom = seen
        if self.mirror_x:
            left, right = width - right, width - left
        if self.mirror_y:
            top, bottom = height - bottom, height - top
        return (top, left, bottom, right) if self.swap else (left, top, right, bottom)

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn stored pixels [H, W, 3]."""
        pixels = pixels.transpose(1, 0, 2) if self.swap else pixels
        pixels = pixels[:, ::-1] if self.mirror_x else pixels
        return np.ascontiguousarray(pixels[::-1] if self.mirror_y else pixels)


TURNS = {
    1: Turn(),
    2: Turn(mirror_x=True),
    3: Turn(mirror_x=True, mirror_y=True),
    4: Turn(mirror_y=True),
    5: Turn(swap=True),
    6: Turn(swap=True, mirror_x=True),
    7: Turn(swap=True, mirror_x=True, mirror_y=True),
    8: Turn(swap=True, mirror_y=True),
}
"""By EXIF orientation."""
