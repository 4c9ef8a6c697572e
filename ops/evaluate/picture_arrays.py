"""What rows of the table need of the pictures beside their descriptors; read when a row first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.search.coattention import Coattention
from landseer.ops.errors import OpsError

Score = Callable[[NDArray[np.float32], NDArray[np.float16], NDArray[np.int32]], Coattention]
"""The `coattention` graph: from a query vector [P], vectors [C, K, P] and their counts [C]."""


class PictureArrays(Protocol):
    """Arrays of queries and references, by the names of `arrays.py`, and the graphs that take them."""

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array of each query."""

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array of each reference."""

    def regions(self) -> Iterator[Sequence[NDArray[np.float16]]]:
        """Yield the local descriptors of each region of each reference, without the whole of it."""

    def codebook(self, words: int) -> Codebook:
        """Return a codebook of so many words; 0 for as many as its photographs allow."""

    def coattention(self) -> Score:
        """Return the served graph."""

    def coattention_of_all(self) -> Score:
        """Return the same for any number of vectors of each candidate."""

    def reduced(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return the co-attention vectors [n, P] of single local features [n, C]."""


class _NoArrays:
    """Of pictures of which there are only descriptors."""

    def __getattr__(self, name: str) -> Any:
        raise OpsError(f"there are only descriptors of these pictures, and this row needs {name.replace('_', ' ')}")


NO_ARRAYS: PictureArrays = _NoArrays()
