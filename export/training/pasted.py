"""Pictures of which it is known where the object is: photographs pasted into others.

For the detectors and the region proposals, where no one has drawn boxes. A photograph is cut out (its box where it has
one), turned, sheared, resized, put into other light and blended over the edge into another photograph; where it came to
lie is then known to the pixel. It teaches what stands out from its surroundings, not what a landmark is: boxes drawn by
people are worth more.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """A picture and the boxes in it."""

    pixels: Pixels
    """RGB [H, W, 3]."""
    boxes: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels, [n, 4]; n may be 0."""


@dataclass(frozen=True, kw_only=True)
class PasteRanges:
    """How far pastes may go."""

    extent: tuple[float, float] = (0.2, 0.8)
    """The object's longer side, of the frame's shorter."""
    rotation: float = 20.0
    """Degrees either way."""
    shear: float = 0.2
    """Either way, of the sides."""
    stretch: float = 1.2
    """Most by which the aspect ratio changes, as a factor."""
    light: float = 0.3
    """Of each colour channel, as a factor 1 ± light."""
    feather: float = 2.0
    """Standard deviation of the blended edge, in pixels."""
    hidden: float = 0.2
    """Most of the object that may lie beyond the frame, of each of its sides."""


def pasted(
    thing: Pixels,
    background: Pixels,
    draw: np.random.Generator,
    *,
    height: int,
    width: int,
    ranges: PasteRanges | None = None,
) -> Annotated:
    """Paste `thing` [h, w, 3] into `background` [., ., 3], resized to height x width. The box is of what can be seen.

    Half of the things keep their rectangle, half are cut to an ellipse, so that straight edges are not all that is
    learned. The same state of `draw` gives the same picture.
    """
    limits = ranges or PasteRanges()
    behind = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA)
    thing = _sized(thing, draw.uniform(*limits.extent) * min(height, width))
    matrix = _placement(thing, draw, height, width, limits)
    mask = cv2.warpAffine(_cut_out(thing, draw), matrix, (width, height), flags=cv2.INTER_LINEAR)
    seen = cv2.warpAffine(thing, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = seen * draw.uniform(1 - limits.light, 1 + limits.light, 3)
    soft = cv2.GaussianBlur(mask, (0, 0), limits.feather)[..., None]
    blended = np.clip(behind + soft * (lit - behind), 0, 255).astype(np.uint8)
    return Annotated(pixels=blended, boxes=_extent(mask > 0.5))


def _sized(thing: Pixels, side: float) -> Pixels:
    """Bring the longer side to `side` pixels, averaging, so that what follows need not shrink."""
    ratio = side / max(thing.shape[:2])
    size = tuple(max(2, round(length * ratio)) for length in thing.shape[1::-1])
    return np.asarray(cv2.resize(thing, size, interpolation=cv2.INTER_AREA))


def _placement(
    thing: Pixels, draw: np.random.Generator, height: int, width: int, limits: PasteRanges
) -> NDArray[np.float64]:
    """Return the affine map [2, 3] from the thing's pixels to the frame's."""
    h, w = thing.shape[:2]
    stretch = np.sqrt(draw.uniform(1.0, limits.stretch)) ** draw.choice((-1.0, 1.0))
    angle, shear = draw.uniform(-1, 1, 2) * (np.deg2rad(limits.rotation), limits.shear)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[stretch, shear], [0.0, 1.0 / stretch]])
    side = np.abs(linear) @ (w, h)  # of the rectangle around it
    inset = side * (0.5 - limits.hidden)
    free = np.maximum((width, height) - inset, inset)
    return np.column_stack([linear, draw.uniform(inset, free) - linear @ (w / 2, h / 2)])


def _cut_out(thing: Pixels, draw: np.random.Generator) -> NDArray[np.float32]:
    """Return what of the thing is pasted, as 0 or 1: [h, w]."""
    h, w = thing.shape[:2]
    mask = np.ones((h, w), np.float32)
    if draw.random() < 0.5:
        y, x = np.ogrid[:h, :w]
        mask[((x + 0.5) / w * 2 - 1) ** 2 + ((y + 0.5) / h * 2 - 1) ** 2 > 1] = 0.0
    return mask


def _extent(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the box around a mask [H, W]: [1, 4], or [0, 4] if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 4), np.float32)
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
