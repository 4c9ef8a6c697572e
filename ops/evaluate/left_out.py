"""An augmented database for a query that is in it, as if the query had never been there.

In leave-one-out search it is not enough to drop a picture from its own hits: it is also part of the augmented vectors
of pictures that resemble it, so it would help to find itself. Only those vectors need to be augmented again.
"""

from __future__ import annotations

import numpy as np

from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.search.expansion.augmentation import BLOCK, Augmenter


class LeftOut:
    """Which vectors of a database depend on which rows, found once for any number of queries."""

    def __init__(self, augmenter: Augmenter) -> None:
        """augmenter: over a database whose keys are its rows, 0 .. N - 1, as from `Augmenter.over`."""
        self._augmenter = augmenter
        size = augmenter.engine.size
        blocks = (np.arange(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))
        leaning = [found for block in blocks for found in augmenter.leaning_on(block)]
        self._who = np.repeat(np.arange(size), [len(found) for found in leaning])
        self._on_whom = np.concatenate([np.empty(0, np.int64), *leaning])

    def rows(self, own: int) -> tuple[Keys, Vectors]:
        """Return the rows [m] that depend on row `own`, and their vectors without it, float32 [m, D].

        All other rows stay as they are. `own` itself may be among the rows; ignore it.
        """
        rows = np.unique(self._who[self._on_whom == own])
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        nothing = np.empty((0, self._augmenter.engine.dimension), np.float32)
        return rows, np.concatenate([nothing, *(self._augmenter.rows(block, without=own) for block in blocks)])
