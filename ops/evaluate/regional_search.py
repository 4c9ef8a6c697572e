"""Regional search of D2R: every region of a picture is an entry of its own.

A picture takes the best, or the mean, of what its regions score. The index is as many times larger as there are
regions; R-ASMK, one entry a picture, is what D2R sets against that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS

Pooling = Literal["max", "mean"]


class RegionalSearch:
    """An inverted file of regions, whose scores are those of the pictures that they lie in."""

    def __init__(self, pictures: Sequence[Sequence[Binary]], codebook: Codebook) -> None:
        """Hold the regions of pictures [P], the whole of each being its first. ValueError for one without any."""
        counts = np.array([len(regions) for regions in pictures], np.int64)
        if not counts.all():
            raise ValueError("got a picture without regions; expected the whole of it as its first")
        self._starts = np.cumsum(counts) - counts
        self._counts = counts
        regions = list(chain.from_iterable(pictures))
        self.file = InvertedFile(words=codebook.words, bits=codebook.dimension, kernel=KERNELS["asmk"])
        self.file.add(np.arange(len(regions)), regions)

    def scores(self, query: Binary, pooling: Pooling) -> NDArray[np.float64]:
        """Return the score of each picture, [P]. A region without words scores -1, as the kernel has it."""
        _, scores = self.file.scores(query)
        if pooling == "max":
            return np.maximum.reduceat(scores, self._starts)
        return np.asarray(np.add.reduceat(scores, self._starts) / self._counts)
