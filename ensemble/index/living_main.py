"""A main index without the pictures that were removed since it was built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.main_index import MainIndex
from landseer.ensemble.index.mapped_vectors import MappedVectors
from landseer.ensemble.index.selection import Selection

Stored = Callable[[Keys], Vectors]
"""Returns the stored vectors of keys, float32 [n, D], zero for those that are missing; D may be 0 if all are."""
FEW = 16
"""Candidates beyond those asked for, as some of them may have been removed."""

WARMING = 64
"""Searches that map what searches read; an exact index reads all for each."""


def living_vectors(stored: Stored, keys: Keys, dimension: int) -> Vectors:
    """Return the stored vectors [n, D] under keys [n]; NaN for those that the store has no more."""
    found = stored(keys)
    if not found.shape[1]:
        return np.full((len(keys), dimension), np.nan, np.float32)
    found[~found.any(axis=1)] = np.nan
    return found


class LivingMain:
    """A main index and its tombstones: a bit a picture. Removing a picture takes the same time in any index.

    Used by one thread at a time, after it was made on any.
    """

    def __init__(
        self,
        index: MainIndex,
        stored: Stored,
        *,
        sequence: int,
        longest: float,
        number: int,
        mapped: MappedVectors | None = None,
    ) -> None:
        """sequence: of the store that it was built from. longest: an upper bound of its norms. number: of the version.

        stored: reads vectors from the store, by which candidates are scored if there are none beside the index, mapped.
        """
        self._index, self._stored, self._mapped = index, stored, mapped
        self.sequence, self.longest, self.number = sequence, longest, number
        self.exact = index.exact
        self.setting = index.setting
        self._removed = np.zeros(index.size, np.bool_)
        self._count = 0

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return self._index.dimension

    @property
    def size(self) -> int:
        """Number of vectors that can be found."""
        return self._index.size - self._count

    @property
    def tombstones(self) -> int:
        """Number of vectors that were removed."""
        return self._count

    def candidates(self, k: int) -> int:
        """Return how many candidates to score for k hits."""
        return k + 32 + k // 8 if self.exact else self.setting.candidates(k)

    def remove(self, keys: Keys) -> None:
        """Remove the vectors under keys [n]; missing keys are ignored."""
        rows = np.unique(self._rows(np.asarray(keys, np.int64)))
        rows = rows[rows >= 0]
        self._count += int(np.count_nonzero(~self._removed[rows]))
        self._removed[rows] = True

    def keep(self, living: Keys) -> None:
        """Remove all vectors but those under the keys `living`, ascending."""
        places = np.searchsorted(living, self._index.keys)
        there = places < len(living)
        there[there] = living[places[there]] == self._index.keys[there]
        self._removed = ~there
        self._count = int(np.count_nonzero(self._removed))

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates for the nearest to each of queries [Q, D], best first.

        k' = k, or the number of vectors that may be found if that is less.
        """
        beyond = min(self._count, FEW + 2 * -(-k * self._count // max(1, self._index.size)))
        while True:
            keys, scores = self._index.search(queries, k + beyond, selection)
            if not self._count:
                return keys, scores
            living = ~self._removed[self._rows(keys)]
            fewest = int(living.sum(axis=1).min(initial=k))
            if fewest >= k or keys.shape[1] < k + beyond or beyond >= self._count:
                break
            beyond = min(self._count, 4 * beyond)
        # Stable: the living first, best first.
        order = np.argsort(~living, axis=1, kind="stable")[:, : min(k, fewest)]
        return np.take_along_axis(keys, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def warm(self) -> None:
        """Search for some of its own vectors, so that the first searches do not wait for pages to be mapped."""
        for key in self._index.keys[:: max(1, self._index.size // (1 if self.exact else WARMING))]:
            query = self.vectors(np.array([key]))
            if not np.isnan(query).any():
                self._index.search(query, FEW)

    def vectors(self, keys: Keys) -> Vectors:
        """Return the stored vectors [n, D] under keys [n]; NaN for what was removed from the store meanwhile."""
        if self._mapped is not None:
            return self._mapped.at(self._rows(keys))
        return living_vectors(self._stored, keys, self.dimension)

    def held(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Vectors]:
        """Return which of keys [n] have a vector beside the index and were not removed, and these vectors [m, D].

        Any thread may ask. None has, where vectors are read from the store.
        """
        rows = self._rows(keys) if self._mapped is not None else np.full(len(keys), -1)
        there = rows >= 0
        there[there] = ~self._removed[rows[there]]
        if self._mapped is None:
            return there, np.empty((0, self.dimension), np.float32)
        return there, self._mapped.at(rows[there])

    def _rows(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Return the row of each key, in the shape of keys; -1 for keys that it does not have."""
        ours = self._index.keys
        rows = np.searchsorted(ours, keys)
        inside = rows < len(ours)
        inside[inside] = ours[rows[inside]] == keys[inside]
        return np.where(inside, rows, -1)
