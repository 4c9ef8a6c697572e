"""From pixels to the keypoints of a picture to index, or of a query, on threads of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import QUERY_SIDE, extract
from landseer.ensemble.workers import Workers

Pixels = NDArray[np.uint8]


class Extractor:
    """Finds keypoints and gives them their words, beside Triton's work on the same picture."""

    def __init__(self, quantiser: Quantiser, *, threads: int) -> None:
        """threads: for queries, and as many again for pictures to index."""
        self.quantiser = quantiser
        self._queries = Workers("keypoints", threads=threads)
        # Separate threads, so that searches do not queue behind a bulk upload.
        self._bulk = Workers("keypoints-bulk", threads=threads, queue=4096)

    async def of_picture(self, pixels: Pixels) -> CompactKeypoints:
        """Return the keypoints of a picture to index. pixels: [H, W, 3], RGB, the model's input."""
        return await self._bulk.run(lambda: self.quantiser.compact(extract(pixels), frame_of(pixels)))

    async def of_query(self, pixels: Pixels) -> QueryKeypoints:
        """Return the keypoints of a query. Overloaded."""
        return await self._queries.run(lambda: query_keypoints(self.quantiser, pixels))

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._queries.close()
        self._bulk.close()


def query_keypoints(quantiser: Quantiser, pixels: Pixels) -> QueryKeypoints:
    """Return the keypoints of a query. pixels: [H, W, 3], RGB, the model's input."""
    return quantiser.query(extract(pixels, side=QUERY_SIDE), frame_of(pixels))


def frame_of(pixels: Pixels) -> tuple[int, int]:
    """Return width and height of a picture [H, W, 3]."""
    return pixels.shape[1], pixels.shape[0]
