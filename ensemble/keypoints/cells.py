"""Centroids in cells: which are nearest to a descriptor, found by comparing a few cells.

FAISS compares one descriptor after another with the cells that it looks into. Here one cell after another is compared
with all descriptors that look into it, so 1,000 keypoints get their words in 5 ms instead of 8 (one core, AVX-512).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from landseer.ensemble.asmk.codebook import Features, Words
from landseer.ensemble.asmk.compiled import compiled

LANES = 16
"""A cell's centroids are padded to a multiple of so many."""
NONE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """Centroids, cell after cell, each cell padded to a multiple of `LANES`."""

    values: Features
    """[C * D]: of each cell [D, width], value after value."""
    halves: Features
    """[C], half the squared norms; infinite for padding."""
    begins: Words
    """[cells + 1], where cells begin among the C."""
    rows: Words
    """[C], of the centroids; `NONE` for padding."""

    @classmethod
    def of(cls, centroids: Features, cells: Words, count: int) -> Blocks:
        """Lay out centroids [K, D]. cells: [K], the cell of each; count: how many cells there are."""
        order, sizes = np.argsort(cells, kind="stable"), np.bincount(cells, minlength=count)
        widths = -(-sizes // LANES) * LANES
        begins = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        rows = np.full(begins[-1], NONE, np.int64)
        rows[np.arange(len(order)) + np.repeat(begins[:-1] - np.cumsum(sizes) + sizes, sizes)] = order
        padded = np.where(rows[:, None] == NONE, np.float32(0), centroids[rows])
        halves = np.where(rows == NONE, np.float32(np.inf), 0.5 * np.square(padded).sum(axis=1))
        values = [padded[begins[cell] : begins[cell + 1]].T.ravel() for cell in range(count)]
        return cls(values=np.concatenate(values), halves=halves.astype(np.float32), begins=begins, rows=rows)


class Cells:
    """Finds the nearest centroids. Threads may share it."""

    def __init__(self, centroids: Features, *, cells: int, probed: int) -> None:
        """centroids: [K, D], D even; cells: how many, 1 to compare all; probed: cells compared."""
        self._probed = min(probed, cells)
        centroids = np.ascontiguousarray(centroids, np.float32)
        middles = _middles(centroids, cells)
        self._middles = Blocks.of(middles, np.zeros(cells, np.int64), 1)
        own = self._nearest(self._middles, centroids, np.zeros((len(centroids), 1), np.int64), 1)
        self._centroids = Blocks.of(centroids, own[:, 0], cells)

    def search(self, descriptors: Features, multiple: int) -> Words:
        """Return the nearest centroids of descriptors [n, D], nearest first, [n, multiple]; `NONE` where they lack."""
        everywhere = np.zeros((len(descriptors), 1), np.int64)
        cells = self._nearest(self._middles, descriptors, everywhere, self._probed)
        return self._nearest(self._centroids, descriptors, cells, multiple)

    def _nearest(self, blocks: Blocks, descriptors: Features, cells: Words, multiple: int) -> Words:
        """Return the nearest centroids in the cells that each descriptor looks into, [n, multiple]. cells: [n, m]."""
        count = len(blocks.begins) - 1
        # Two bytes are sorted by radix.
        order = np.argsort(cells.ravel().astype(np.uint16), kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(cells.ravel(), minlength=count))])
        found = np.full((len(descriptors), multiple), NONE, np.int64)
        scores = np.full(found.shape, -np.inf, np.float32)
        lookers = starts, order // cells.shape[1]
        compare_cells()(descriptors, (blocks.values, blocks.halves, blocks.begins), lookers, (found, scores))
        return np.where(found == NONE, NONE, blocks.rows[found])


def _middles(centroids: Features, cells: int) -> Features:
    """Return the middles of cells, [cells, D], by k-means."""
    import faiss

    if cells == 1:
        return np.asarray(centroids.mean(axis=0, keepdims=True), np.float32)
    means: Any = faiss.Kmeans(centroids.shape[1], cells, niter=10, min_points_per_centroid=1)
    means.train(centroids)
    return np.asarray(means.centroids, np.float32)


class Compare(Protocol):
    """Compares descriptors with the cells that they look into."""

    def __call__(
        self,
        descriptors: Features,
        blocks: tuple[Features, Features, Words],
        lookers: tuple[Words, Words],
        best: tuple[Words, Features],
    ) -> None:
        """Insert what is nearer than the best so far.

        descriptors: [n, D]; blocks: values, halves and begins of `Blocks`; lookers: those of cell c are
        lookers[1][lookers[0][c] : lookers[0][c + 1]]; best: places among the C, and x c - |c|^2 / 2 of descriptor x and
        centroid c, which is higher the nearer they are, [n, multiple] each, highest first. The first of equals stays.
        """


@cache
def compare_cells() -> Compare:
    """Return the loop."""

    def loop(descriptors: Any, blocks: Any, lookers: Any, best: Any) -> None:
        values, halves, begins = blocks
        starts, rows = lookers
        found, scores = best
        size, last = descriptors.shape[1], found.shape[1] - 1
        widest = 0
        for cell in range(len(begins) - 1):
            widest = max(widest, begins[cell + 1] - begins[cell])
        products = np.empty((4, widest), np.float32)
        for cell in range(len(begins) - 1):
            first, width = begins[cell], begins[cell + 1] - begins[cell]
            block = values[first * size : (first + width) * size].reshape((size, width))
            for place in range(starts[cell], starts[cell + 1], 4):
                # Four descriptors and two values at once, so that most of what is read is used several times.
                several = min(4, starts[cell + 1] - place)
                last_row = place + several - 1
                one, two = descriptors[rows[place]], descriptors[rows[min(place + 1, last_row)]]
                three, four = descriptors[rows[min(place + 2, last_row)]], descriptors[rows[last_row]]
                for which in range(4):
                    for column in range(width):
                        products[which, column] = -halves[first + column]
                for value in range(0, size, 2):
                    a, b, c, d = one[value], two[value], three[value], four[value]
                    e, f, g, h = one[value + 1], two[value + 1], three[value + 1], four[value + 1]
                    this, next = block[value], block[value + 1]
                    for column in range(width):
                        products[0, column] += a * this[column] + e * next[column]
                        products[1, column] += b * this[column] + f * next[column]
                        products[2, column] += c * this[column] + g * next[column]
                        products[3, column] += d * this[column] + h * next[column]
                for which in range(several):
                    row = rows[place + which]
                    for column in range(width):
                        score = products[which, column]
                        if score > scores[row, last]:
                            rank = last
                            while rank > 0 and scores[row, rank - 1] < score:
                                scores[row, rank], found[row, rank] = scores[row, rank - 1], found[row, rank - 1]
                                rank -= 1
                            scores[row, rank], found[row, rank] = score, first + column

    blocks = "Tuple((float32[::1], float32[::1], int64[::1]))"
    lookers, best = "Tuple((int64[::1], int64[::1]))", "Tuple((int64[:, ::1], float32[:, ::1]))"
    made: Compare = compiled(loop, f"void(float32[:, ::1], {blocks}, {lookers}, {best})")
    return made
