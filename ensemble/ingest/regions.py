"""The regions of a picture that are also described, for R-ASMK: the detector's best boxes (D2R)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.pictures.pictures import Region

LEAST = 0.1
"""D2R's score threshold."""


def regions_of(boxes: NDArray[np.float32], *, most: int, width: int, height: int) -> list[Region]:
    """Return the `most` best boxes as regions of a picture, clipped to its size.

    boxes: [m, 5]: x, y, width, height, score; best first. D2R widens boxes to whole pixels; here crops may start and
    end within a pixel, like the region of a query. Regions less than a pixel wide or high are dropped.
    """
    chosen = [box for box in boxes.tolist() if box[4] >= LEAST][:most]
    regions = []
    for x, y, across, down, _ in chosen:
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + across, float(width)), min(y + down, float(height))
        if right - left >= 1.0 and bottom - top >= 1.0:
            regions.append(Region(x=left, y=top, width=right - left, height=bottom - top))
    return regions
