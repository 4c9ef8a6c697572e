"""The keypoints of a query: each with several words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import Packed
from landseer.ensemble.asmk.codebook import MOST_WORDS
from landseer.ensemble.keypoints.compact import CompactKeypoints, Words, aggregated

SEARCHED = 3
"""Words of a keypoint that are searched for. Verification uses all of them."""
ASKED = 300
"""Keypoints that a query searches with. Twice as many take 1.6 times as long and find no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WordTable:
    """Which keypoints have a word, and their bits: those of word c are [begins[i], begins[i + 1]) for i = places[c]."""

    places: NDArray[np.int32]
    """[65,536], 0 for words that no keypoint has."""
    begins: Words
    """[distinct words + 2]; the first is of an empty list."""
    codes: NDArray[np.uint64]
    """[n * M, 2]."""
    rows: Words
    """[n * M], of the keypoints."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryKeypoints:
    """Keypoints with their nearest words (multiple assignment, Jegou et al. 2010)."""

    keypoints: CompactKeypoints
    """Words and bits are those of the nearest word."""
    words: Words
    """[n, M], nearest first."""
    codes: Packed
    """[n, M, 16], the bits of the residual to each word."""

    @classmethod
    def of_indexed(cls, keypoints: CompactKeypoints) -> QueryKeypoints:
        """Return the keypoints of an indexed picture as a query: one word each, as the store keeps no descriptors."""
        return cls(keypoints=keypoints, words=keypoints.words[:, None], codes=keypoints.codes[:, None])

    @cached_property
    def table(self) -> WordTable:
        """The keypoints by word."""
        flat = self.words.ravel()
        order = np.argsort(flat, kind="stable")
        rows = np.repeat(np.arange(len(self.words)), self.words.shape[1])
        codes = self.codes.reshape(len(flat), self.codes.shape[-1])[order]
        # Few of the words occur: to count all of them took 0.3 ms.
        distinct, counts = np.unique(flat, return_counts=True)
        places = np.zeros(MOST_WORDS, np.int32)
        places[distinct] = np.arange(1, len(distinct) + 1)
        begins = np.concatenate([[0, 0], np.cumsum(counts)])
        return WordTable(places=places, begins=begins, codes=codes.view(np.uint64), rows=rows[order])

    def aggregated(self, *, multiple: int = SEARCHED) -> Binary:
        """Return the nearest `multiple` words of the strongest keypoints, one code for each, for a search by words."""
        words, codes = self.words[:ASKED, :multiple], self.codes[:ASKED, :multiple]
        return aggregated(words.ravel(), codes.reshape(-1, codes.shape[-1]))
