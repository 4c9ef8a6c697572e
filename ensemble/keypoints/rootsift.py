"""RootSIFT keypoints of a picture: SIFT (Lowe 2004) by OpenCV, with RootSIFT's scaling.

Keypoints see print, brush strokes and logos, which deep local features, 32 pixels apart, do not. They are found on the
pixels that the backbone gets, so a picture is decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSION = 128
"""Values of a descriptor."""
MOST = 1000
"""Keypoints of a picture; docs/research/keypoints.md compares numbers and sizes."""
SIDE = 360
"""The longer side, in pixels, on which keypoints are found.

At 640 px the 1,000 strongest are mostly noise of the finest scale. With 400 px, queries found no more than with 360, as
they are looked at more finely, and a picture takes an eighth longer; docs/research/keypoints.md has figures.
"""
QUERY_SIDE = 480
"""The same of a query, which may show the thing small, in clutter: there, first hits rise from 84 to 94%."""
CONTRAST = 0.02
"""Least contrast of a keypoint. At 640 px and OpenCV's 0.04, a tenth of such pairs keep at most 31 inliers, not 38."""

DOUBLED = 0.25
"""OpenCV finds keypoints on the picture at twice its size, and halves x and y as if pixels began at their centres."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Keypoints:
    """Keypoints of a picture, strongest first."""

    descriptors: NDArray[np.float32]
    """[n, 128], unit norm, values from 0 to 1."""
    positions: NDArray[np.float32]
    """[n, 2]: x, y in pixels of the model's input."""
    sizes: NDArray[np.float32]
    """[n], diameter of the described neighbourhood's core, pixels."""
    angles: NDArray[np.float32]
    """[n], orientation, radians from 0 to 2 pi, clockwise as y points down."""

    def __len__(self) -> int:
        return len(self.descriptors)


def extract(pixels: NDArray[np.uint8], *, most: int = MOST, side: int = SIDE) -> Keypoints:
    """Return the strongest keypoints of a picture [H, W, 3], RGB; none on a blank one.

    side: the longer side, in pixels, on which they are found; a smaller picture is not enlarged.
    """
    import cv2

    grey, shrunk = _reduced(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), side)
    sift: Any = cv2.SIFT.create(nfeatures=most, contrastThreshold=CONTRAST)
    points, raw = sift.detectAndCompute(grey, None)
    if raw is None:
        points, raw = (), np.empty((0, DIMENSION), np.float32)
    # OpenCV keeps more than `nfeatures` where the last ones tie.
    order = np.argsort([-point.response for point in points], kind="stable")[:most]
    geometry = np.array([(*points[row].pt, points[row].size, points[row].angle) for row in order], np.float32)
    geometry = geometry.reshape(-1, 4)
    return Keypoints(
        descriptors=root_sift(raw[order]),
        # OpenCV counts from the centre of the first pixel.
        positions=(geometry[:, :2] - DOUBLED + 0.5) / shrunk - 0.5,
        sizes=geometry[:, 2] / shrunk,
        angles=np.deg2rad(geometry[:, 3]),
    )


def _reduced(grey: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """Return a picture whose longer side is at most `side`, and the factor by which it was reduced."""
    import cv2

    height, width = grey.shape
    if max(height, width) <= side:
        return grey, 1.0
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def root_sift(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the square roots of SIFT [n, 128] divided by their sums: unit norm.

    RootSIFT (Arandjelovic and Zisserman, "Three things everyone should know", 2012, section 2): the dot product of two
    is the Hellinger kernel of the histograms.
    """
    rows = descriptors.astype(np.float32)
    rows /= np.maximum(rows.sum(axis=1, keepdims=True), 1e-6)
    return np.sqrt(rows, out=rows)
