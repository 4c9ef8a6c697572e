"""Augmented databases for queries that are pictures of the database: as if the query had never been there.

Where every picture is searched for among the rest, leaving it out of its own hits is not enough: its vector is in the
augmented ones of those that resemble it, which would then find it by itself. Only they need to be augmented again.
"""

from __future__ import annotations

import numpy as np

from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.search.expansion.augmentation import BLOCK, Augmenter


class LeftOut:
    """Who leans on whom in a database, found once, then asked for any number of queries."""

    def __init__(self, augmenter: Augmenter) -> None:
        """augmenter: of a database whose keys are its rows, 0 .. N - 1, as `Augmenter.over` makes it."""
        self._augmenter = augmenter
        size = augmenter.engine.size
        blocks = (np.arange(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))
        leaning = [found for block in blocks for found in augmenter.leaning_on(block)]
        self._who = np.repeat(np.arange(size), [len(found) for found in leaning])
        self._on_whom = np.concatenate([np.empty(0, np.int64), *leaning])

    def rows(self, own: int) -> tuple[Keys, Vectors]:
        """Return the rows [m] that row `own` shapes, and what they are without it, float32 [m, D].

        All others stay as `augmented` has them, and `own` itself is not to be looked at.
        """
        rows = np.unique(self._who[self._on_whom == own])
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        nothing = np.empty((0, self._augmenter.engine.dimension), np.float32)
        return rows, np.concatenate([nothing, *(self._augmenter.rows(block, without=own) for block in blocks)])
