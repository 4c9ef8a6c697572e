"""Drawn pictures, like printed covers, and what a camera makes of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from landseer.export.training.flat_targets import SIZE, cover

__all__ = ["SIZE", "apply", "camera", "corners_of", "cover", "photographed"]

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


def corners_of(size: tuple[int, int] = SIZE) -> Points:
    """Return the middles of the corner pixels, [4, 2]: top left, top right, bottom right, bottom left."""
    right, bottom = size[0] - 1.0, size[1] - 1.0
    return np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)


def apply(map: Points, points: Points) -> Points:
    """Map points [n, 2] by a homography [3, 3]."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ map.T
    return mapped[:, :2] / mapped[:, 2:]


def camera(*, turn: float = 0.0, tilt: float = 0.0, zoom: float = 1.0, size: tuple[int, int] = SIZE) -> Points:
    """Return the homography [3, 3] of a cover photographed turned by degrees, tilted, and so large; in the middle."""
    angle, middle = np.radians(turn), (np.array(size) - 1) / 2
    turned = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    map = np.eye(3)
    map[:2, :2], map[2, 0] = turned, tilt / size[0]
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = -middle, middle
    return back @ map @ there


def photographed(pixels: Pixels, map: Points, size: tuple[int, int] = SIZE, *, noise: float = 3.0) -> Pixels:
    """Return a photograph of a cover by a homography, on a grey table, with noise."""
    seen = cv2.warpPerspective(pixels, map, size, flags=cv2.INTER_AREA, borderValue=(120, 120, 120))
    grain = np.random.default_rng(0).normal(0, noise, seen.shape)
    return np.clip(seen + grain, 0, 255).round().astype(np.uint8)
