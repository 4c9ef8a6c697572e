"""SIFT keypoints of a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.rootsift import root_sift
from landseer.export.curation.errors import UnreadablePicture
from landseer.export.curation.settings import MatchSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """SIFT keypoints (Lowe 2004) of a picture, after EXIF rotation and reduced to width x height."""

    points: NDArray[np.float32]
    """[N, 2]: x, y in pixels of the reduced picture, (0, 0) its top left corner."""
    descriptors: NDArray[np.uint8]
    """[N, 128]."""
    width: int
    height: int

    def rooted(self) -> NDArray[np.float32]:
        """Return RootSIFT of the descriptors, [N, 128]."""
        return root_sift(self.descriptors)


def extract(path: Path, settings: MatchSettings) -> Features:
    """Extract the keypoints of a file. UnreadablePicture if it is not a picture."""
    import cv2

    pixels = _grey(path, settings.side)
    found, descriptors = cv2.SIFT.create(nfeatures=settings.keypoints).detectAndCompute(
        pixels, np.full_like(pixels, 255)
    )
    height, width = pixels.shape
    # OpenCV's origin is the centre of the first pixel.
    points = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2) + 0.5
    known = np.zeros((0, 128)) if descriptors is None else descriptors
    return Features(points=points, descriptors=known.astype(np.uint8), width=width, height=height)


def _grey(path: Path, side: int) -> NDArray[np.uint8]:
    """Return the grey pixels [H, W] of a file after EXIF rotation, the longer side at most `side`."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            # Decode a JPEG at half size or less where that suffices; thumbnail does the rest.
            picture.draft("L", (2 * side, 2 * side))
            grey = ImageOps.exif_transpose(picture).convert("L")
            grey.thumbnail((side, side), Image.Resampling.LANCZOS)
            return np.asarray(grey)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(f"{path}: {error}") from error
