"""Words and bits of keypoints."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from landseer.ensemble.asmk.bits import Packed, binarise
from landseer.ensemble.asmk.codebook import Codebook, Features
from landseer.ensemble.keypoints.cells import NONE, Cells
from landseer.ensemble.keypoints.compact import CompactKeypoints, Words
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import DIMENSION, Keypoints

MULTIPLE = 5
"""Words of a keypoint of a query. Those of indexed pictures have one."""
EXACT = 2048
"""Codebooks of at most so many words are compared whole."""
CELLS, PROBED = 256, 8
"""Larger ones are split into cells, of which the nearest few are compared: 92 of 100 keypoints get the nearest word."""


class Quantiser:
    """Gives keypoints their words. Threads may share it."""

    def __init__(self, codebook: Codebook) -> None:
        """ValueError unless the codebook is of RootSIFT."""
        if codebook.dimension != DIMENSION:
            raise ValueError(f"got a codebook of {codebook.dimension} values; keypoints have {DIMENSION}")
        self.codebook = codebook
        self._cells = _cells(codebook)

    def compact(self, keypoints: Keypoints, frame: tuple[int, int]) -> CompactKeypoints:
        """Return what the store keeps of a picture. frame: width and height of the model's input."""
        words = self._words(keypoints.descriptors, 1)
        return self._compact(keypoints, words[:, 0], frame)

    def query(self, keypoints: Keypoints, frame: tuple[int, int]) -> QueryKeypoints:
        """Return the keypoints of a query, each with `MULTIPLE` words."""
        words = self._words(keypoints.descriptors, min(MULTIPLE, self.codebook.words))
        codes = [self._codes(keypoints.descriptors, column) for column in words.T]
        return QueryKeypoints(
            keypoints=self._compact(keypoints, words[:, 0], frame), words=words, codes=np.stack(codes, axis=1)
        )

    def _compact(self, keypoints: Keypoints, words: Words, frame: tuple[int, int]) -> CompactKeypoints:
        return CompactKeypoints(
            words=words,
            codes=self._codes(keypoints.descriptors, words),
            positions=keypoints.positions,
            sizes=keypoints.sizes,
            angles=keypoints.angles,
            frame=frame,
        )

    def _words(self, descriptors: Features, multiple: int) -> Words:
        """Return the nearest words, [n, multiple]; int64, nearest first."""
        found = self._cells.search(np.ascontiguousarray(descriptors), multiple)
        lost = found[:, 0] == NONE
        if lost.any():
            # All cells compared are empty, which takes a codebook with many words in one place.
            found[lost] = self.codebook.assign(descriptors[lost], multiple=multiple)
        # The cells may hold fewer words than asked for: the nearest stands for those that are missing.
        return np.where(found == NONE, found[:, :1], found)

    def _codes(self, descriptors: Features, words: Words) -> Packed:
        return binarise(descriptors - self.codebook.centroids[words])


@lru_cache(maxsize=2)
def _cells(codebook: Codebook) -> Cells:
    """Return the cells of the centroids. Cached: to learn those of 16,384 words takes 0.4 s of a core."""
    return Cells(codebook.centroids, cells=1 if codebook.words <= EXACT else CELLS, probed=PROBED)
