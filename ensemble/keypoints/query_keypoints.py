"""The keypoints of a query: each with several words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import Packed
from landseer.ensemble.keypoints.compact import STRONGEST, CompactKeypoints, Words, aggregated

SEARCHED = 3
"""Words of a keypoint that are searched for. Verification uses all of them."""


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
    def table(self) -> tuple[Words, Packed, Words]:
        """Words, ascending, with their bits and the row of the keypoint: [n * M] each."""
        flat = self.words.ravel()
        order = np.argsort(flat, kind="stable")
        rows = np.repeat(np.arange(len(self.words)), self.words.shape[1])
        return flat[order], self.codes.reshape(len(flat), self.codes.shape[-1])[order], rows[order]

    def aggregated(self, *, multiple: int = SEARCHED) -> Binary:
        """Return the nearest `multiple` words of the strongest keypoints, one code for each, for a search by words."""
        words, codes = self.words[:STRONGEST, :multiple], self.codes[:STRONGEST, :multiple]
        return aggregated(words.ravel(), codes.reshape(-1, codes.shape[-1]))
