"""Draw random views of a photograph, to which a descriptor should be invariant.

Instance-level self-supervision: two views of one photograph are a positive pair, whatever its class. A view shows a
part of the photograph from another viewpoint and in another light, either filling the frame or inside another
photograph, as an object among others. Views are never mirrored, because print and façades never are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Corners = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ViewRanges:
    """Ranges of the random views. Lengths are fractions, angles degrees."""

    crop: tuple[float, float] = (0.5, 1.0)
    """Sides of the visible part, relative to the photograph's."""
    extent: tuple[float, float] = (0.5, 1.0)
    """Sides of the part within a frame with another background."""
    shift: float = 0.15
    """Maximum offset of the part's centre from the frame's."""
    rotation: float = 12.0
    perspective: float = 0.12
    """Maximum shift of each corner, relative to the part's sides."""
    light: float = 0.35
    """Brightness, contrast and saturation are multiplied by 1 ± light."""
    tint: float = 0.08
    """Each colour channel is multiplied by 1 ± tint."""
    blur: float = 1.5
    """Maximum standard deviation, in pixels."""


def view(
    photograph: Pixels,
    draw: np.random.Generator,
    *,
    side: int,
    background: Pixels | None = None,
    ranges: ViewRanges | None = None,
) -> Pixels:
    """Return a view [side, side, 3] of a photograph [H, W, 3], over a background [h, w, 3] if given. RGB."""
    limits = ranges or ViewRanges()
    source = _part(photograph.shape[1], photograph.shape[0], draw, limits)
    target = _frame(side) if background is None else _within(side, draw, limits)
    target = target + _jitter(target, draw, limits)
    if background is None:
        # Corners that moved inwards show what surrounds the part, mirrored at the photograph's edge.
        seen = _warped(photograph, source, target, side, cv2.BORDER_REFLECT_101)
    else:
        behind = cv2.resize(background, (side, side), interpolation=cv2.INTER_AREA)
        seen = np.where(_inside(target, side)[..., None], _warped(photograph, source, target, side), behind)
    return _lit(seen.astype(np.float32), draw, limits)


def _part(width: int, height: int, draw: np.random.Generator, limits: ViewRanges) -> Corners:
    """Return the corners of a random part of a picture, clockwise from top left, in pixels. [4, 2]."""
    scale = draw.uniform(*limits.crop)
    w, h = (length * min(1.0, scale * draw.uniform(0.85, 1.15)) for length in (width, height))
    x, y = draw.uniform(0, width - w), draw.uniform(0, height - h)
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)


def _frame(side: int) -> Corners:
    return np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)


def _within(side: int, draw: np.random.Generator, limits: ViewRanges) -> Corners:
    """Return the corners of the part within the frame: near its centre, like a photographed object."""
    extent = draw.uniform(*limits.extent)
    w, h = (side * min(1.0, extent * draw.uniform(0.75, 1.25)) for _ in range(2))
    x, y = (side / 2 + draw.uniform(-limits.shift, limits.shift) * side for _ in range(2))
    return np.array([[x - w / 2, y - h / 2], [x + w / 2, y - h / 2], [x + w / 2, y + h / 2], [x - w / 2, y + h / 2]])


def _jitter(corners: Corners, draw: np.random.Generator, limits: ViewRanges) -> Corners:
    """Return offsets [4, 2] that rotate a rectangle slightly and add perspective."""
    centre = corners.mean(axis=0)
    angle = np.deg2rad(draw.uniform(-limits.rotation, limits.rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (corners - centre) @ turn.T + centre
    sides = corners.max(axis=0) - corners.min(axis=0)
    moved = turned + draw.uniform(-limits.perspective, limits.perspective, (4, 2)) * sides
    return np.asarray(moved - corners, np.float32)


def _warped(picture: Pixels, source: Corners, target: Corners, side: int, border: int = cv2.BORDER_REPLICATE) -> Pixels:
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    return np.asarray(cv2.warpPerspective(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border))


def _inside(corners: Corners, side: int) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), (1.0,))
    return mask.astype(bool)


def _lit(pixels: NDArray[np.float32], draw: np.random.Generator, limits: ViewRanges) -> Pixels:
    """Change the light: brightness, contrast, saturation, tint, and a slight blur."""
    brightness, contrast, saturation = draw.uniform(1 - limits.light, 1 + limits.light, 3)
    tint = draw.uniform(1 - limits.tint, 1 + limits.tint, 3)
    grey = pixels.mean(axis=2, keepdims=True)
    coloured = (grey + (pixels - grey) * saturation) * tint * brightness
    lit = coloured.mean() + (coloured - coloured.mean()) * contrast
    sigma = draw.uniform(0, limits.blur)
    if sigma > 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), sigma)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
