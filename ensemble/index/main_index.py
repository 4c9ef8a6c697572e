"""The main index of a collection: built once from the store, saved as files, mapped, never changed.

What changes meanwhile lives beside it, and whoever merges the two builds a new main index. `faiss_index` has the
implementations; `main_index_of` there gives the one for a setting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.selection import Selection

Batch = tuple[Keys, npt.NDArray[Any]]
"""Keys [n], increasing from batch to batch, and their vectors [n, D]."""
Batches = Callable[[], Iterable[Batch]]
"""Returns a new pass over all vectors, such as `store.vectors.scan`."""
Sampled = Callable[[int], Iterable[Batch]]
"""Returns the same of every n-th vector."""


class BuildStopped(Exception):
    """The build of an index was told to stop."""


class MainIndex(Protocol):
    """Finds candidates for the nearest vectors by inner product. Immutable; used by one thread at a time.

    Scores of candidates are approximate, unless it is `exact`: callers score them again with the stored vectors.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]
    """Whether it compares each query with every vector as stored, in fp32 or better."""

    @property
    def setting(self) -> IndexSetting:
        """How it was built and is searched."""

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""

    @property
    def size(self) -> int:
        """Number of vectors."""

    @property
    def keys(self) -> Keys:
        """Keys [n] of its rows, increasing. Read only."""

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates for the nearest to each of queries [Q, D], best first.

        k' = min(k, number of vectors that `selection` allows): no row has gaps, however few it allows.
        """

    def save(self, folder: Path) -> None:
        """Write its files into an empty folder. They are not synced: that is the caller's. OSError."""

    @classmethod
    def load(cls, folder: Path, *, threads: int) -> MainIndex:
        """Map the files that `save` wrote; vectors are read when searches first need them.

        threads: as of `build`. ValueError if they are not what `save` wrote; OSError.
        """

    @classmethod
    def build(
        cls,
        setting: IndexSetting,
        dimension: int,
        batches: Batches,
        *,
        expected: int,
        threads: int,
        sampled: Sampled | None = None,
        progress: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> MainIndex:
        """Build from vectors of D values, as many as there are.

        sampled: reads the vectors that train an index, if it is to be trained; without it, a pass over all does.
        expected: about how many there will be; decides how large a sample trains it. threads: of FAISS, for building
        and searching; 0 uses all cores that the process may use. progress: called with the number of vectors so far.
        stop: setting it ends the build soon, with BuildStopped. ValueError for a factory string that FAISS does not
        know or that cannot be served, for vectors of another size, and for keys that do not increase.
        """
