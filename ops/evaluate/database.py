"""The vectors that are searched: raw, or augmented by their neighbours once for each recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.engines import Keys
from landseer.ensemble.search.expansion.augmentation import BLOCK, Attention, Augmenter
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ops.evaluate.left_out import LeftOut

Floats = NDArray[np.float32]
Begin = Callable[[str, int], Callable[[], None]]
"""From a task and its number of steps to a function to call after each step."""
KEPT_BYTES = 2**29
"""Most bytes of changes kept in memory: 1,745 pictures of 1,280 values with 10 neighbours take 90 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """The references whose vectors differ for one query."""

    rows: Keys
    """[m], ascending."""
    vectors: Floats
    """[m, D]."""

    def over(self, vectors: Floats, rows: Keys) -> Floats:
        """Return the vectors [n, D] of rows [n] with the changes applied."""
        changed = np.isin(rows, self.rows)
        found = vectors.copy()
        found[changed] = self.vectors[np.searchsorted(self.rows, rows[changed])]
        return found


class Changes:
    """The change for each query that is a reference, kept for the next method while memory allows."""

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._kept: dict[int, Change] = {}
        self._room = KEPT_BYTES

    def of(self, own: int) -> Change:
        """Return what differs if row `own` had never been in the database."""
        if own in self._kept:
            return self._kept[own]
        rows, vectors = self._left_out.rows(own)
        found = Change(rows=rows, vectors=vectors)
        if vectors.nbytes <= self._room:
            self._room -= vectors.nbytes
            self._kept[own] = found
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Database:
    """The vectors that are searched."""

    vectors: Floats
    """[N, D], unit norm."""
    recipe: Recipe | None = None
    """How they were augmented; None for raw vectors."""
    changes: Changes | None = None
    """For augmented vectors, if some queries are references."""

    def without(self, own: int | None) -> Change:
        """Return what differs if the query's own row had never been there; nothing if it has none."""
        if self.changes is None or own is None:
            return Change(rows=np.empty(0, np.int64), vectors=self.vectors[:0])
        return self.changes.of(own)


class Databases:
    """The references by recipe. Only the last augmented ones are kept, so run the methods of a recipe together."""

    def __init__(
        self, references: Floats, own: Sequence[int | None], *, attention: Callable[[], Attention], threads: int = 0
    ) -> None:
        """references: raw, [N, D]; own: the row of each query among them, or None; attention: loads LAttQE's attention.

        threads: of the search, 0 for all cores.
        """
        self._raw = Database(vectors=references)
        self._shared = any(row is not None for row in own)
        self._attention, self._threads = attention, threads
        self._latest = self._raw

    def of(self, recipe: Recipe | None, begin: Begin) -> Database:
        """Return the references augmented by a recipe; raw for None."""
        if recipe is None:
            return self._raw
        if self._latest.recipe != recipe:
            self._latest = self._raw  # Frees the old one first: each may take gigabytes.
            self._latest = self._augmented(recipe, begin)
        return self._latest

    def _augmented(self, recipe: Recipe, begin: Begin) -> Database:
        augmenter = Augmenter.over(
            self._raw.vectors,
            recipe.method,
            recipe.neighbours,
            parameter=recipe.parameter,
            attention=self._attention() if recipe.method == LATTQE else None,
            threads=self._threads,
        )
        rows = np.concatenate(list(_rows(augmenter, begin)))
        changes = Changes(LeftOut(augmenter)) if self._shared else None
        return Database(vectors=rows, recipe=recipe, changes=changes)


def _rows(augmenter: Augmenter, begin: Begin) -> Iterator[Floats]:
    starts = range(0, augmenter.engine.size, BLOCK)
    advance = begin("augmenting", len(starts))
    for start in starts:
        yield augmenter.rows(np.arange(start, min(start + BLOCK, augmenter.engine.size)))
        advance()
