"""Inverted lists of full-precision residuals, for VLAD, ASMK and their regional forms of D2R.

For comparison with binarised residuals: a word takes 4 D bytes instead of D / 8. Scores are those of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Aggregated
from landseer.ensemble.asmk.kernel import Kernel


class VectorLists:
    """Scores all pictures by the visual words that they share with a query."""

    def __init__(self, pictures: Sequence[Aggregated], *, words: int, kernel: Kernel) -> None:
        """Index pictures [P]. words: size of the codebook. ValueError for a kernel with idf."""
        if kernel.idf:
            raise ValueError("got a kernel with idf; expected one that weighs all words alike")
        self.kernel = kernel
        self.sizes = np.array([len(one.words) for one in pictures], np.int64)
        every = np.concatenate([np.empty(0, np.int64), *(one.words for one in pictures)])
        order = np.argsort(every, kind="stable")
        self._owners = np.repeat(np.arange(len(pictures)), self.sizes)[order]
        self._vectors = np.concatenate([one.vectors for one in pictures])[order] if len(order) else np.empty((0, 0))
        self._offsets = np.searchsorted(every[order], np.arange(words + 1))

    @property
    def nbytes(self) -> int:
        """Size of the lists."""
        return self._owners.nbytes + self._vectors.nbytes + self._offsets.nbytes

    def scores(self, query: Aggregated) -> NDArray[np.float64]:
        """Return the score of each picture, [P]; 0 where no word is shared."""
        scores = np.zeros(len(self.sizes))
        if not len(self._owners):
            return scores
        for word, vector in zip(query.words.tolist(), query.vectors, strict=True):
            of_word = slice(self._offsets[word], self._offsets[word + 1])
            # A picture has a word at most once, so no score is added to twice.
            scores[self._owners[of_word]] += self.kernel.selected(self._vectors[of_word] @ vector)
        if self.kernel.normalised:
            scores /= np.sqrt(np.maximum(self.sizes, 1) * max(len(query.words), 1))
        return scores
