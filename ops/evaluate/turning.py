"""Query pictures turned by a right angle, to measure how much a search minds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from landseer.ensemble.config import Limits
from landseer.ensemble.pictures.pictures import Region, upright
from landseer.ops.evaluate.dataset import Shot

QUALITY = 95
"""Of the JPEG that a turned picture becomes: an uncompressed one of 12 megapixels is more than a service takes."""


def shown(shot: Shot, data: bytes, limits: Limits) -> tuple[bytes, Region | None]:
    """Return the picture that is searched with and its region, from the bytes of the shot's file.

    Turned pixels are encoded again, without EXIF, since a turn in EXIF would be undone. InvalidInput for a picture that
    cannot be decoded.
    """
    if not shot.turn:
        return data, shot.region
    pixels = upright(data, limits=limits)
    quarters = shot.turn // 90
    file = io.BytesIO()
    Image.fromarray(np.rot90(pixels, -quarters)).save(file, "JPEG", quality=QUALITY, subsampling=0)
    height, width, _ = pixels.shape
    return file.getvalue(), None if shot.region is None else _turned(shot.region, quarters, height, width)


def _turned(region: Region, quarters: int, height: int, width: int) -> Region:
    """Return the region of a picture turned clockwise by quarters; height, width: of the picture before."""
    for _ in range(quarters):
        x, y = height - region.y - region.height, region.x
        region = Region(x=x, y=y, width=region.height, height=region.width)
        height, width = width, height
    return region
