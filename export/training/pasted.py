"""Make training pictures with known boxes by pasting things into photographs: other photographs, or flat targets.

For training detectors and region proposals without annotated boxes. A thing is rotated, sheared, resized, relit and
blended into a photograph, so its box is known to the pixel. This teaches what stands out from its surroundings, not
what a landmark is: annotated boxes are better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """A picture with boxes."""

    pixels: Pixels
    """RGB [H, W, 3]."""
    boxes: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels, [n, 4]; n may be 0."""


@dataclass(frozen=True, kw_only=True)
class PasteRanges:
    """Ranges of the random pasting."""

    extent: tuple[float, float] = (0.2, 0.8)
    """The object's longer side relative to the frame's shorter side."""
    rotation: float = 20.0
    """Maximum rotation in degrees."""
    shear: float = 0.2
    """Maximum shear, relative to the sides."""
    stretch: float = 1.2
    """Maximum change of the aspect ratio, as a factor."""
    light: float = 0.3
    """Each colour channel is multiplied by 1 ± light."""
    feather: float = 2.0
    """Standard deviation of the blended edge, in pixels."""
    hidden: float = 0.2
    """Maximum part of each side that may lie outside the frame."""
    perspective: float = 0.0
    """Maximum shift of each corner of the object, relative to its sides."""
    rounded: float = 0.5
    """Share of the objects that are cut to an ellipse, so that not only straight edges are learned."""


COVERED = 0.1
"""Most of a box, pasted or already there, that another one of a picture may cover."""


def pasted(
    thing: Pixels,
    background: Pixels,
    draw: np.random.Generator,
    *,
    height: int,
    width: int,
    ranges: PasteRanges | None = None,
) -> Annotated:
    """Paste `thing` [h, w, 3] into `background` [., ., 3], resized to height x width. The box covers the visible part.

    The same state of `draw` gives the same picture.
    """
    return scene([thing], background, draw, height=height, width=width, ranges=ranges)


def scene(
    things: Sequence[Pixels],
    background: Pixels,
    draw: np.random.Generator,
    *,
    height: int,
    width: int,
    ranges: PasteRanges | None = None,
) -> Annotated:
    """Paste things [h, w, 3] into a background in turn, as `pasted` does, without those that cover one another.

    Each is tried at one place; one of which a box would be covered by more than `COVERED` is left out.
    """
    limits = ranges or PasteRanges()
    pixels = np.asarray(cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    boxes = np.zeros((0, 4), np.float32)
    for thing in things:
        blended, box = _blended(thing, pixels, draw, limits)
        if len(box) and not _covers(box[0], boxes):
            pixels, boxes = blended, np.concatenate([boxes, box])
    return Annotated(pixels=pixels, boxes=boxes)


def _blended(
    thing: Pixels, behind: Pixels, draw: np.random.Generator, limits: PasteRanges
) -> tuple[Pixels, NDArray[np.float32]]:
    """Return a picture with a thing in it, and the box of its visible part, [1, 4] or [0, 4]."""
    height, width = behind.shape[:2]
    thing = _sized(thing, draw.uniform(*limits.extent) * min(height, width))
    matrix, size = _placement(thing, draw, height, width, limits), (width, height)
    mask = cv2.warpPerspective(_cut_out(thing, draw, limits.rounded), matrix, size, flags=cv2.INTER_LINEAR)
    seen = cv2.warpPerspective(thing, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = seen * draw.uniform(1 - limits.light, 1 + limits.light, 3)
    soft = cv2.GaussianBlur(mask, (0, 0), limits.feather)[..., None]
    blended = np.clip(behind + soft * (lit - behind), 0, 255).astype(np.uint8)
    return blended, _extent(mask > 0.5)


def _covers(box: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Say whether a box [4] and one of the others [n, 4] cover more than `COVERED` of the smaller one."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    smaller = np.minimum((box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1))
    return bool((common > COVERED * smaller).any())


def _sized(thing: Pixels, side: float) -> Pixels:
    """Resize the longer side to `side` pixels by averaging, so that later steps need not shrink."""
    ratio = side / max(thing.shape[:2])
    size = tuple(max(2, round(length * ratio)) for length in thing.shape[1::-1])
    return np.asarray(cv2.resize(thing, size, interpolation=cv2.INTER_AREA))


def _placement(
    thing: Pixels, draw: np.random.Generator, height: int, width: int, limits: PasteRanges
) -> NDArray[np.float64]:
    """Return the map [3, 3] from the object's pixels to the frame."""
    h, w = thing.shape[:2]
    stretch = np.sqrt(draw.uniform(1.0, limits.stretch)) ** draw.choice((-1.0, 1.0))
    angle, shear = draw.uniform(-1, 1, 2) * (np.deg2rad(limits.rotation), limits.shear)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[stretch, shear], [0.0, 1.0 / stretch]])
    side = np.abs(linear) @ (w, h)  # of its bounding rectangle
    inset = side * (0.5 - limits.hidden)
    free = np.maximum((width, height) - inset, inset)
    affine = np.column_stack([linear, draw.uniform(inset, free) - linear @ (w / 2, h / 2)])
    return np.vstack([affine, (0.0, 0.0, 1.0)]) @ _tilt(w, h, draw, limits.perspective)


def _tilt(width: int, height: int, draw: np.random.Generator, most: float) -> NDArray[np.float64]:
    """Return a map [3, 3] that shifts each corner of a rectangle by up to `most` of its sides."""
    if not most:
        return np.eye(3)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + draw.uniform(-most, most, (4, 2)).astype(np.float32) * (width, height)
    return np.asarray(cv2.getPerspectiveTransform(corners, moved.astype(np.float32)), np.float64)


def _cut_out(thing: Pixels, draw: np.random.Generator, rounded: float) -> NDArray[np.float32]:
    """Return the mask of the pasted part, 0 or 1: [h, w]."""
    h, w = thing.shape[:2]
    mask = np.ones((h, w), np.float32)
    if draw.random() < rounded:
        y, x = np.ogrid[:h, :w]
        mask[((x + 0.5) / w * 2 - 1) ** 2 + ((y + 0.5) / h * 2 - 1) ** 2 > 1] = 0.0
    return mask


def _extent(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the box around a mask [H, W]: [1, 4], or [0, 4] if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 4), np.float32)
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
