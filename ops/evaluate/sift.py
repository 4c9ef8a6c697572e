"""The keypoints of the baseline: RootSIFT by OpenCV. They need no model, only the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.rootsift import root_sift

Floats = NDArray[np.float32]

VALUES = 128
"""Of a descriptor."""
LONG_SIDE = 640
MOST = 1000
"""Keypoints of a picture. OpenCV keeps more where the last ones are equally strong."""
PROFILE = Profile(
    backbone=f"OpenCV {cv2.__version__} SIFT, {MOST}",
    weights_sha256="",
    sizes=Sizes(channels=VALUES),
    long_side=LONG_SIDE,
    side_multiple=1,
    min_side=1,
)
"""How pictures are prepared; its fingerprint names the keypoints in the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiftKeypoints:
    """The keypoints of a picture."""

    descriptors: NDArray[np.uint8]
    """[n, 128], SIFT as OpenCV returns it: whole numbers from 0 to 255."""
    positions: Floats
    """[n, 2], x and y in pixels of the resized picture."""

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.descriptors.nbytes + self.positions.nbytes

    def rooted(self) -> Floats:
        """Return RootSIFT of the descriptors, [n, 128]."""
        return root_sift(self.descriptors)


def keypoints(pixels: NDArray[np.uint8]) -> SiftKeypoints:
    """Return the keypoints of RGB pixels [H, W, 3]: at most `MOST`, otherwise OpenCV's defaults."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    found, descriptors = cv2.SIFT.create(nfeatures=MOST).detectAndCompute(grey, np.full_like(grey, 255))
    if descriptors is None:
        descriptors = np.empty((0, VALUES))
    positions = np.array([one.pt for one in found], np.float32).reshape(-1, 2)
    return SiftKeypoints(descriptors=descriptors.astype(np.uint8), positions=positions)
