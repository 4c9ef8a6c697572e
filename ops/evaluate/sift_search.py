"""The baseline's search: match a query with every reference and count what agrees on a homography."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.sift import Floats, SiftKeypoints

RATIO = 0.8
"""Of the distances to the nearest and the second nearest descriptor, below which a match is kept. Lowe 2004."""
PIXELS = 5.0
"""Farthest that a match may lie from where the homography maps it."""
FEWEST = 4
"""Matches that a homography needs."""


class SiftSearch:
    """Exhaustive: every query is matched with every reference."""

    def __init__(self, references: Sequence[SiftKeypoints], *, threads: int) -> None:
        """threads: that look for homographies while the next references are matched."""
        self._references, self._threads = references, threads
        self._room = np.empty(0, np.float32)
        self.index_bytes = sum(one.nbytes for one in references) / max(1, len(references))
        """Bytes per reference."""

    def scores(self, query: SiftKeypoints) -> NDArray[np.float64]:
        """Return the score of each reference, [N]: its inliers, and as a fraction below 1 its matches."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="homography") as pool:
            found = list(pool.map(_inliers_and_matches, self._matched(query)))
        inliers, counts = np.array(found, np.float64).reshape(-1, 2).T
        return np.asarray(inliers + counts / (1 + len(query.positions)))

    def _matched(self, query: SiftKeypoints) -> Iterator[tuple[Floats, Floats]]:
        """Yield the positions, [m, 2] of the query and [m, 2] of the reference, that match in each reference."""
        asked = query.rooted()
        # One reference at a time: the similarities to several together no longer fit into the cache.
        for one in self._references:
            similarities = self._similarities(len(asked), len(one.positions))
            from_query, to_reference = matches(np.dot(asked, one.rooted().T, out=similarities))
            yield query.positions[from_query], one.positions[to_reference]

    def _similarities(self, height: int, width: int) -> Floats:
        """Return an array to overwrite, since the system would clear new memory for every product."""
        if self._room.size < height * width:
            self._room = np.empty(height * width, np.float32)
        return self._room[: height * width].reshape(height, width)


def matches(similarities: Floats) -> tuple[Ids, Ids]:
    """Return the rows and columns of similarities [n, m] of unit vectors that pass the ratio test.

    Overwrites the highest of each row. With fewer than two columns there is no second nearest, so nothing passes.
    """
    if similarities.shape[0] == 0 or similarities.shape[1] < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = np.arange(len(similarities))
    nearest = similarities.argmax(axis=1)
    best = similarities[rows, nearest]
    similarities[rows, nearest] = -np.inf
    second = similarities.max(axis=1)
    # The squared distance of unit vectors is 2 - 2 s.
    kept = np.flatnonzero(1 - best < RATIO**2 * (1 - second))
    return kept, nearest[kept]


def _inliers_and_matches(points: tuple[Floats, Floats]) -> tuple[int, int]:
    """Return how many matches agree on a homography, and how many there are."""
    count = len(points[0])
    if count < FEWEST:
        return 0, count
    _, kept = cv2.findHomography(*points, cv2.RANSAC, PIXELS)
    return 0 if kept is None else int(kept.sum()), count
