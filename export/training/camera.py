"""Pictures of flat things: as a scanner sees them, and as a telephone does, askew, in clutter and in poor light."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Draw = np.random.Generator
Corners = NDArray[np.float32]

EXTENT = (0.45, 1.05)
"""Longer side of a thing in a photograph, relative to the photograph's."""
CLOSE = (0.6, 1.5)
"""The same where it may reach beyond the photograph."""
TILT = 9.0
"""Standard deviation of the rotation, in degrees."""
SHIFT = 0.09
"""Maximum shift of each corner, relative to the thing's sides."""


def scanned(target: Pixels, draw: Draw, *, side: int) -> Pixels:
    """Return a picture [side, side, 3] of a whole target [H, W, 3], straight on, on a plain bed."""
    height, width = target.shape[:2]
    scale = side * draw.uniform(0.93, 1.0) / max(height, width)
    w, h = int(width * scale), int(height * scale)
    x, y = (side - w) // 2, (side - h) // 2
    bed = np.full((side, side, 3), int(draw.choice([255, 245, 20])), np.uint8)
    bed[y : y + h, x : x + w] = cv2.resize(target, (w, h), interpolation=cv2.INTER_AREA)
    return _levels(_lit(bed.astype(np.float32), draw, light=0.12, tint=0.04))


def photographed(
    target: Pixels, draw: Draw, *, side: int, background: Pixels, extent: tuple[float, float] = EXTENT
) -> Pixels:
    """Return a photograph [side, side, 3] of a target [H, W, 3] before a background [h, w, 3]."""
    height, width = target.shape[:2]
    scale = side * draw.uniform(*extent) / max(height, width)
    corners = _corners(width * scale, height * scale, side, draw)
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(flat, corners)
    shrinking = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
    seen = cv2.warpPerspective(target, matrix, (side, side), flags=shrinking)
    covered = cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, (side, side))
    mask = covered[..., None] / np.float32(255)
    pixels = np.asarray(seen * mask + _backdrop(background, side, draw) * (1 - mask), np.float32)
    lit = _lit(np.clip(_glare(_shade(pixels, draw), draw), 0, 255), draw, light=0.35, tint=0.13)
    return _compressed(_noise(_blur(_few_pixels(lit, draw), draw), draw), draw)


def _corners(width: float, height: float, side: int, draw: Draw) -> Corners:
    """Return where the corners of a thing of this size lie, clockwise from top left. → [4, 2]."""
    angle = np.deg2rad(draw.normal(0, TILT))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    straight = np.array([[-width, -height], [width, -height], [width, height], [-width, height]], np.float32) / 2
    room = max(side - max(width, height), 0.0) / 2 + 0.04 * side
    moved = draw.uniform(-SHIFT, SHIFT, (4, 2)) * np.array([width, height]) + draw.uniform(-room, room, 2)
    return np.asarray(straight @ turn + side / 2 + moved, np.float32)


def _backdrop(background: Pixels, side: int, draw: Draw) -> Floats:
    """Return part of a background, or of every third picture smooth colours."""
    if draw.random() < 1 / 3:
        cells = int(draw.choice([2, 3, 6, 40]))
        colours = draw.integers(0, 256, 3) + draw.normal(0, 28, (cells, cells, 1))
        return np.asarray(cv2.resize(colours.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC))
    height, width = background.shape[:2]
    part = draw.uniform(0.4, 1.0)
    h, w = max(int(height * part), 1), max(int(width * part), 1)
    x, y = int(draw.integers(0, width - w + 1)), int(draw.integers(0, height - h + 1))
    seen = cv2.resize(background[y : y + h, x : x + w], (side, side)).astype(np.float32)
    return np.asarray(seen * draw.uniform(0.5, 1.1), np.float32)


def _shade(pixels: Floats, draw: Draw) -> Floats:
    """Make one side darker than the other."""
    if draw.random() >= 0.6:
        return pixels
    x, y = _grid(len(pixels))
    angle, strength = draw.uniform(0, 2 * np.pi), draw.uniform(-0.45, 0.45)
    slope = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    return np.asarray(pixels * (1 + strength * slope)[..., None], np.float32)


def _glare(pixels: Floats, draw: Draw) -> Floats:
    """Add the reflection of a lamp."""
    if draw.random() >= 0.45:
        return pixels
    x, y = _grid(len(pixels))
    at_x, at_y, radius, flat = (draw.uniform(*one) for one in ((0.1, 0.9), (0.1, 0.9), (0.04, 0.22), (0.3, 1.0)))
    spot = np.exp(-(((x - at_x) / radius) ** 2 + ((y - at_y) / (radius * flat)) ** 2))
    return np.asarray(pixels + draw.uniform(80, 255) * spot[..., None], np.float32)


def _lit(pixels: Floats, draw: Draw, *, light: float, tint: float) -> Floats:
    """Change brightness, contrast and saturation by 1 ± light, and each channel by 1 ± tint."""
    brightness, contrast, saturation = draw.uniform(1 - light, 1 + light, 3)
    grey = pixels.mean(axis=2, keepdims=True)
    coloured = (grey + (pixels - grey) * saturation) * draw.uniform(1 - tint, 1 + tint, 3) * brightness
    return np.asarray(coloured.mean() + (coloured - coloured.mean()) * contrast, np.float32)


def _few_pixels(pixels: Floats, draw: Draw) -> Floats:
    share = draw.uniform(0.3, 1.0) if draw.random() < 0.6 else 1.0
    if share >= 0.9:
        return pixels
    small = cv2.resize(np.clip(pixels, 0, 255), None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def _blur(pixels: Floats, draw: Draw) -> Floats:
    """Blur: out of focus, or by a moving hand."""
    if draw.random() < 0.5:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), draw.uniform(0.4, 1.8)))
    if draw.random() < 0.2:
        length = int(draw.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(draw.integers(0, length))), (length - 1, int(draw.integers(0, length))), (1.0,))
        pixels = np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()))
    return pixels


def _noise(pixels: Floats, draw: Draw) -> Floats:
    if draw.random() >= 0.5:
        return pixels
    return np.asarray(pixels + draw.normal(0, draw.uniform(1, 9), pixels.shape), np.float32)


def _compressed(pixels: Floats, draw: Draw) -> Pixels:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(draw.integers(25, 92))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", _levels(pixels), quality)[1], cv2.IMREAD_COLOR), np.uint8)


def _levels(pixels: Floats) -> Pixels:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _grid(side: int) -> tuple[Floats, Floats]:
    """Return x and y of each pixel, 0 to 1. → [side, side] each."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    return x, y
