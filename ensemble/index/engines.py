"""Index engines: nearest neighbours among vectors in memory.

An engine is a plain object used by one thread at a time; `LiveIndex` wraps it for the event loop and makes its answers
exact in order and score. To add an engine, write a class here, a line in `ENGINES` and a row in the congruence test
against exact search.

Measured on two cores, 100,000 vectors of 1280 values (500 MB): adding 0.35 s; one query 17 to 30 ms, 16 together 45 ms,
64 together 100 ms, hardly more for k = 1100. With a selection of 1% one query takes a 37th of the processor time, 64 a
6th; with 10% to 99% 64 take 0.9 to 1.1 times that of all. Replacing one of 133,000 vectors takes 0.4 ms, removing 256
of them 1.6 ms (on a busy machine, where FAISS's own removal took 116 and 258 ms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from landseer.ensemble.cores import cores
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.selection import Selection

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
WIDER, MOST_WIDE = 1.5, 1024
"""By how much more than expected are found where some are dropped, and the most that are."""


class IndexEngine(Protocol):
    """Finds the nearest vectors by inner product."""

    name: ClassVar[str]
    """Its key in `ENGINES`."""
    exact: ClassVar[bool]
    """Whether it compares each query with every vector, in fp32 or better."""

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""

    @property
    def size(self) -> int:
        """Number of vectors."""

    def reserve(self, count: int) -> None:
        """Make room for so many vectors in an empty engine, so that adding them copies none of the others."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors [n, D] under keys [n]. Existing keys are replaced; of duplicate keys the last one counts."""

    def remove(self, keys: Keys) -> None:
        """Remove the vectors under keys [n]; missing keys are ignored."""

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D], best first.

        With a selection, only of its keys. k' = k, or the number of all vectors that may be found if that is less.
        Where an engine that is not exact finds fewer for a query than for others, its row ends in keys of -1.
        """

    def vectors(self, keys: Keys) -> Vectors:
        """Return the vectors [n, D] under keys [n], bit for bit as added. KeyError for missing keys."""


@runtime_checkable
class RemoteEngine(IndexEngine, Protocol):
    """An engine in another process, which may be away for a while, and whose vectors the store has, too."""

    @property
    def lacks(self) -> str:
        """What searches may miss, and why; empty if nothing."""

    @property
    def seen(self) -> int:
        """The last change of the store that searches see; 0 if they see a part, or nothing."""

    @property
    def waits(self) -> bool:
        """Whether another process brings it up to date."""

    @property
    def refusal(self) -> LandseerError | None:
        """Why it cannot serve this collection, if trying again does not help."""

    def tend(self) -> bool:
        """Bring it up to date by a part; return whether there is more to do. Called while nothing else happens."""

    def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Among:
    """The rows of a selection."""

    selection: Selection
    rows: npt.NDArray[np.bool_]
    """[n], whether each is allowed."""
    count: int
    """How many are."""
    parameters: Any
    """What makes FAISS compare these only."""


class FaissExact:
    """Exact search over uncompressed vectors: FAISS's IndexFlatIP, and the key of each of its rows.

    A removed vector gives its row to the last one: FAISS would move all that follow, and searches would wait for that.

    `threads` limits FAISS's OpenMP threads; 0 uses all cores that the process may use. OpenMP stores that number per
    calling thread, so every call sets it again.
    """

    name: ClassVar[str] = "faiss-exact"
    exact: ClassVar[bool] = True

    def __init__(self, dimension: int, *, threads: int = 0) -> None:
        import faiss

        self._faiss: Any = faiss
        self._threads = threads or min(self._faiss.omp_get_max_threads(), cores())
        self._index = self._faiss.IndexFlatIP(dimension)
        self._keys = np.empty(0, np.int64)
        """[n] of each row, with room for more."""
        self._rows: dict[int, int] = {}
        """By key."""
        self._latest: _Among | None = None
        """The rows of the latest selection."""

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return int(self._index.d)

    @property
    def size(self) -> int:
        """Number of vectors."""
        return len(self._rows)

    def reserve(self, count: int) -> None:
        """Make room for so many vectors in an empty engine: growing step by step takes up to twice the memory.

        FAISS cannot be told, but keeps the room of vectors that are removed. Reading zeros that were never written
        takes no memory.
        """
        if self.size or count < 1:
            return
        self._faiss.omp_set_num_threads(self._threads)
        self._index.add(np.zeros((count, self.dimension), np.float32))
        self._index.remove_ids(self._faiss.IDSelectorRange(0, count))

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors [n, D] under keys [n]. Existing keys are replaced; of duplicate keys the last one counts."""
        keys, vectors = _matched(keys, vectors, self._index.d)
        keys, vectors = _last_of_each(keys, vectors)
        self.remove(keys)
        self._latest = None
        self._faiss.omp_set_num_threads(self._threads)
        self._index.add(vectors)
        first, end = self.size, self.size + len(keys)
        if end > len(self._keys):
            self._keys = np.concatenate([self._keys[:first], np.empty(max(len(keys), first), np.int64)])
        self._keys[first:end] = keys
        self._rows.update(zip(keys.tolist(), range(first, end), strict=True))

    def remove(self, keys: Keys) -> None:
        """Remove the vectors under keys [n]; missing keys are ignored."""
        there = self._rows.keys() & set(np.asarray(keys, np.int64).tolist())
        if not there:
            return
        self._latest = None
        before, left = self.size, self.size - len(there)
        gone = {self._rows.pop(key) for key in there}
        holes = [row for row in gone if row < left]
        last = [row for row in range(left, before) if row not in gone]
        values = self._faiss.rev_swig_ptr(self._index.get_xb(), before * self.dimension).reshape(before, -1)
        values[holes] = values[last]
        moved = self._keys[last]
        self._keys[holes] = moved
        self._rows.update(zip(moved.tolist(), holes, strict=True))
        self._index.remove_ids(self._faiss.IDSelectorRange(left, before))

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D], best first.

        With a selection, only of its keys. k' = k, or the number of all vectors that may be found if that is less.
        """
        queries = _rows(queries, self._index.d)
        among = None if selection is None else self._among(selection)
        k = min(max(k, 0), self.size if among is None else among.count)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        self._tune(len(queries))
        scores, rows = self._index.search(queries, k) if among is None else self._filtered(queries, k, among)
        # FAISS returns row -1 where scores are not numbers.
        return np.where(rows < 0, rows, self._keys[rows]), scores

    def vectors(self, keys: Keys) -> Vectors:
        """Return the vectors [n, D] under keys [n], bit for bit as added. KeyError for missing keys."""
        asked = np.asarray(keys, np.int64).tolist()
        missing = [key for key in asked if key not in self._rows]
        if missing:
            raise KeyError(f"{len(set(missing))} keys are not in the index, such as {min(missing)}")
        found: Vectors = self._index.reconstruct_batch(np.array([self._rows[key] for key in asked], np.int64))
        return found

    def _among(self, selection: Selection) -> _Among:
        """Return the rows of a selection; the latest are kept until the next change."""
        if self._latest is None or self._latest.selection is not selection:
            rows = selection.has(self._keys[: self.size])
            bitmap = self._faiss.IDSelectorBitmap(np.packbits(rows, bitorder="little"))
            parameters = self._faiss.SearchParameters(sel=bitmap)
            count = int(np.count_nonzero(rows))
            self._latest = _Among(selection=selection, rows=rows, count=count, parameters=parameters)
        return self._latest

    def _filtered(self, queries: Vectors, k: int, among: _Among) -> tuple[Vectors, Keys]:
        """Return scores and rows [Q, k] of the nearest among some rows.

        With a selector FAISS compares row by row, and skips the others. Where BLAS is as fast for all rows, as for many
        queries, it finds more than k, of which those of other rows are dropped; queries with too few left are searched
        with the selector.
        """
        wide = int(WIDER * k * self.size / among.count) + 32
        if not self._by_blas(len(queries)) or wide > MOST_WIDE:
            found: tuple[Vectors, Keys] = self._index.search(queries, k, params=among.parameters)
            return found
        scores, rows = self._index.search(queries, min(wide, self.size))
        allowed = among.rows[rows]
        first = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, first, axis=1), np.take_along_axis(rows, first, axis=1)
        few = np.flatnonzero(np.count_nonzero(allowed, axis=1) < k)
        if len(few):
            scores[few], rows[few] = self._index.search(queries[few], k, params=among.parameters)
        return scores, rows

    def _by_blas(self, queries: int) -> bool:
        return queries * self._threads >= 4

    def _tune(self, queries: int) -> None:
        """Choose threads, and BLAS or FAISS's own kernels, for the next search.

        FAISS's kernels use one thread per query: 17 ms instead of 29 ms for one query on two cores. For several queries
        BLAS reads the vectors only once: 100 ms instead of 720 for 64. FAISS 1.15 switches at queries * D = 128,000,
        far too late, and releases up to 1.14 only count queries, so we force the choice.
        """
        self._faiss.omp_set_num_threads(self._threads)
        self._faiss.cvar.distance_compute_blas_threshold = 1 if self._by_blas(queries) else 2**31 - 1


ENGINES: dict[str, Callable[..., IndexEngine]] = {"faiss-exact": FaissExact}
"""Every engine by name; called with the dimension and the keyword `threads`."""


def _rows(vectors: Vectors, dimension: int) -> Vectors:
    rows = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(f"got vectors of shape {rows.shape}; expected rows of {dimension} values")
    return rows


def _matched(keys: Keys, vectors: Vectors, dimension: int) -> tuple[Keys, Vectors]:
    keys, rows = np.ascontiguousarray(keys, np.int64), _rows(vectors, dimension)
    if keys.shape != (len(rows),):
        raise ValueError(f"got {len(rows)} vectors and keys of shape {keys.shape}; expected one key for each vector")
    if len(keys) and keys.min() < 0:
        raise ValueError(f"got key {keys.min()}; expected 0 or more, because FAISS returns -1 for missing results")
    return keys, rows


def _last_of_each(keys: Keys, vectors: Vectors) -> tuple[Keys, Vectors]:
    """Keep the last vector of each key."""
    places = {key: place for place, key in enumerate(keys.tolist())}
    if len(places) == len(keys):
        return keys, vectors
    kept = np.fromiter(places.values(), np.int64, len(places))
    return keys[kept], vectors[kept]
