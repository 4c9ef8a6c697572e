"""Regional search of D2R: every region of a picture is its own entry of the index.

The score of a picture is the best or the mean score of its regions. The index grows with the number of regions, which
R-ASMK, with one entry per picture, avoids.
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
    """An inverted file of regions that returns scores of whole pictures."""

    def __init__(self, pictures: Sequence[Sequence[Binary]], codebook: Codebook) -> None:
        """Index the regions of pictures [P], each starting with the whole picture. ValueError if one has none."""
        counts = np.array([len(regions) for regions in pictures], np.int64)
        if not counts.all():
            raise ValueError("got a picture without regions; expected the whole picture as its first region")
        self._starts = np.cumsum(counts) - counts
        self._counts = counts
        regions = list(chain.from_iterable(pictures))
        self.file = InvertedFile(words=codebook.words, bits=codebook.dimension, kernel=KERNELS["asmk"])
        self.file.add(np.arange(len(regions)), regions)

    def scores(self, query: Binary, pooling: Pooling) -> NDArray[np.float64]:
        """Return the score of each picture, [P]. A region without words scores -1, as in the kernel."""
        _, scores = self.file.scores(query)
        if pooling == "max":
            return np.maximum.reduceat(scores, self._starts)
        return np.asarray(np.add.reduceat(scores, self._starts) / self._counts)
