"""Index engines: who is nearest, over vectors held in memory.

An engine is a plain object that one thread uses at a time; `LiveIndex` gives it its asynchronous face, and makes its
answers exact in order and score. A new engine is a class here, a line in `ENGINES` and a row in the congruence test
against exact search.

Measured on two cores, 100,000 vectors of 1280 (500 MB): adding 0.35 s; one query 17 to 30 ms, 16 together 45 ms, 64
together 100 ms, hardly more for k = 1100; taking one vector out 15 to 30 ms, a thousand together 40 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class IndexEngine(Protocol):
    """Finds the nearest of the vectors that it was given, by inner product."""

    name: ClassVar[str]
    """Its key in `ENGINES`."""
    exact: ClassVar[bool]
    """Whether it compares a query with every vector, in fp32 or better."""

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""

    @property
    def size(self) -> int:
        """How many vectors it holds."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Take vectors [n, D] under keys [n]. A key already there is replaced; of equal keys the last counts."""

    def remove(self, keys: Keys) -> None:
        """Forget the vectors under keys [n]; a key that is not there is ignored."""

    def search(self, queries: Vectors, k: int) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D], best first, k' = min(k, size)."""

    def vectors(self, keys: Keys) -> Vectors:
        """Return the vectors [n, D] under keys [n], bit for bit as they were added. KeyError if one is not there."""


class FaissExact:
    """Exact search over uncompressed vectors: FAISS's IndexFlatIP under an IndexIDMap2.

    `threads` bounds FAISS's OpenMP threads; 0 takes all cores. OpenMP keeps that number per calling thread, so it is
    set again in every call.
    """

    name: ClassVar[str] = "faiss-exact"
    exact: ClassVar[bool] = True

    def __init__(self, dimension: int, *, threads: int = 0) -> None:
        import faiss

        self._faiss: Any = faiss
        self._threads = threads or self._faiss.omp_get_max_threads()
        self._index = self._faiss.IndexIDMap2(self._faiss.IndexFlatIP(dimension))
        # IndexIDMap2 takes a key twice without a word and then answers with both.
        self._present: set[int] = set()

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return int(self._index.d)

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return len(self._present)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Take vectors [n, D] under keys [n]. A key already there is replaced; of equal keys the last counts."""
        keys, vectors = _matched(keys, vectors, self._index.d)
        keys, vectors = _last_of_each(keys, vectors)
        self.remove(keys)
        self._faiss.omp_set_num_threads(self._threads)
        self._index.add_with_ids(vectors, keys)
        self._present.update(keys.tolist())

    def remove(self, keys: Keys) -> None:
        """Forget the vectors under keys [n]; a key that is not there is ignored."""
        there = self._present.intersection(np.asarray(keys, np.int64).tolist())
        if there:
            self._index.remove_ids(np.fromiter(there, np.int64, len(there)))
            self._present -= there

    def search(self, queries: Vectors, k: int) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D], best first, k' = min(k, size)."""
        queries = _rows(queries, self._index.d)
        k = min(max(k, 0), self.size)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        self._tune(len(queries))
        scores, keys = self._index.search(queries, k)
        return keys, scores

    def vectors(self, keys: Keys) -> Vectors:
        """Return the vectors [n, D] under keys [n], bit for bit as they were added. KeyError if one is not there."""
        keys = np.ascontiguousarray(keys, np.int64)
        missing = set(keys.tolist()) - self._present
        if missing:
            raise KeyError(f"{len(missing)} keys are not in the index, such as {min(missing)}")
        found: Vectors = self._index.reconstruct_batch(keys)
        return found

    def _tune(self, queries: int) -> None:
        """Choose threads, and BLAS or FAISS's own kernels, for the next search.

        Its own kernels take one query to a thread: 17 ms against 29 ms for one query on two cores. From a few queries
        on BLAS reads the vectors once for all: 64 in 100 ms against 720. FAISS 1.15 would change over at
        queries * D = 128,000, far too late; releases up to 1.14 count queries alone, so the choice is forced.
        """
        self._faiss.omp_set_num_threads(self._threads)
        blas = queries * self._threads >= 4
        self._faiss.cvar.distance_compute_blas_threshold = 1 if blas else 2**31 - 1


ENGINES: dict[str, Callable[..., IndexEngine]] = {"faiss-exact": FaissExact}
"""Every engine by name; called with the dimension and the keyword `threads`."""


def _rows(vectors: Vectors, dimension: int) -> Vectors:
    rows = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(f"got vectors of shape {rows.shape}; this index holds rows of {dimension} values")
    return rows


def _matched(keys: Keys, vectors: Vectors, dimension: int) -> tuple[Keys, Vectors]:
    keys, rows = np.ascontiguousarray(keys, np.int64), _rows(vectors, dimension)
    if keys.shape != (len(rows),):
        raise ValueError(f"got {len(rows)} vectors and keys of shape {keys.shape}; expected one key for each vector")
    if len(keys) and keys.min() < 0:
        raise ValueError(f"key {keys.min()} is negative; FAISS marks what it did not find by -1")
    return keys, rows


def _last_of_each(keys: Keys, vectors: Vectors) -> tuple[Keys, Vectors]:
    """Keep the last vector of each key."""
    places = {key: place for place, key in enumerate(keys.tolist())}
    if len(places) == len(keys):
        return keys, vectors
    kept = np.fromiter(places.values(), np.int64, len(places))
    return keys[kept], vectors[kept]
