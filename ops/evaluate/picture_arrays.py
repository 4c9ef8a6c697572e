"""What methods need of the pictures besides their descriptors; read on first use."""

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
    """Arrays of queries and references, by their names in `arrays.py`, and the graphs that take them."""

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the array of each query."""

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the array of each reference."""

    def regions(self) -> Iterator[Sequence[NDArray[np.float16]]]:
        """Yield the local descriptors of the regions of each reference, without the whole picture."""

    def has_patches(self) -> bool:
        """Return whether the models make patches."""

    def codebook(self, words: int) -> Codebook:
        """Return a codebook of this size; 0 for as many words as its photographs allow."""

    def coattention(self) -> Score:
        """Return the graph that is served."""

    def coattention_of_all(self) -> Score:
        """Return co-attention for any number of vectors per candidate."""

    def reduced(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return the co-attention vectors [n, P] of single local features [n, C]."""


class _NoArrays:
    """For pictures that have only descriptors."""

    def __getattr__(self, name: str) -> Any:
        raise OpsError(f"these pictures have only descriptors, but this row needs {name.replace('_', ' ')}")


NO_ARRAYS: PictureArrays = _NoArrays()
