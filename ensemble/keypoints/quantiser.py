"""Words and bits of keypoints."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from landseer.ensemble.asmk.bits import Packed, binarise
from landseer.ensemble.asmk.codebook import Codebook, Features
from landseer.ensemble.keypoints.compact import CompactKeypoints, Words
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import DIMENSION, Keypoints

MULTIPLE = 5
"""Words of a keypoint of a query. Those of indexed pictures have one."""
EXACT = 2048
"""Codebooks of at most so many words are compared whole."""
CELLS, PROBED = 256, 8
"""Larger ones are split into cells, of which the nearest few are compared.

With 16,384 words 1,000 keypoints take 23 ms instead of 104 (one core, AVX2), and 93 of 100 get their nearest word.
"""


class Quantiser:
    """Gives keypoints their words. Threads may share it."""

    def __init__(self, codebook: Codebook) -> None:
        """ValueError unless the codebook is of RootSIFT."""
        if codebook.dimension != DIMENSION:
            raise ValueError(f"got a codebook of {codebook.dimension} values; keypoints have {DIMENSION}")
        self.codebook = codebook
        self._index, self._cells = _index(codebook)

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
        _, found = self._index.search(np.ascontiguousarray(descriptors), multiple)
        lost = found[:, 0] < 0
        if lost.any():
            # All cells compared are empty, which takes a codebook with many words in one place.
            found[lost] = self.codebook.assign(descriptors[lost], multiple=multiple)
        # The cells may hold fewer words than asked for: the nearest stands for those that are missing.
        return np.where(found < 0, found[:, :1], found).astype(np.int64)

    def _codes(self, descriptors: Features, words: Words) -> Packed:
        return binarise(descriptors - self.codebook.centroids[words])


@lru_cache(maxsize=2)
def _index(codebook: Codebook) -> tuple[Any, Any]:
    """Return the index of the centroids, and that of its cells, which FAISS does not keep alive.

    Cached: to learn the cells of 16,384 words takes 0.4 s of a core.
    """
    import faiss

    centroids = codebook.centroids
    flat: Any = faiss.IndexFlatL2(centroids.shape[1])
    if len(centroids) <= EXACT:
        flat.add(centroids)
        return flat, None
    index: Any = faiss.IndexIVFFlat(flat, centroids.shape[1], CELLS)
    # Or FAISS prints that there are few centroids to learn the cells from.
    index.cp.min_points_per_centroid = 1
    index.own_fields = False
    index.train(centroids)
    index.add(centroids)
    index.nprobe = PROBED
    return index, flat
