"""The vectors of an index version as the store has them, in one file beside the index: by these candidates are scored.

The store has them, too. But LMDB looks up one after the other, each with its checksum, and releases and takes Python's
lock twice for each, 500 times a search: with four callers at once, a search among a million took 62 ms, most of it
waiting for that lock; 39 with this file. A compiled loop copies them from it, and nobody waits for it, even if the disk
does.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.store.widening import SIGN_AND_VALUE, rescaled

FILE = "vectors.fp16"
"""Its name: rows of D float16, little-endian, in the order of the index's keys, and nothing else."""
Halves = npt.NDArray[np.int16]
Batch = tuple[Keys, npt.NDArray[np.float16]]


class Copy(Protocol):
    """Copies rows."""

    def __call__(self, rows: Halves, places: Keys, copied: npt.NDArray[np.int32]) -> None:
        """Copy the rows [n, D], float16 as int16, at places [C] to copied [C, D], their bits moved for `rescaled`."""


class MappedVectors:
    """The vectors of a version. Threads may share it."""

    def __init__(self, file: Path, *, dimension: int, size: int) -> None:
        """Map a file of `size` vectors of D values. ValueError if it has another size; OSError."""
        with file.open("rb") as opened:
            bytes = opened.seek(0, 2)
            if bytes != 2 * dimension * size:
                raise ValueError(f"{file} has {bytes:,} bytes; expected {size:,} vectors of {dimension} float16")
            self._rows: Halves = np.empty((0, dimension), np.int16)
            if not size:  # Nothing cannot be mapped.
                return
            # Read only: of a private copy Linux would want to be able to keep all in memory.
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        # Few rows here and there: what the system would read ahead is not asked for.
        mapped.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(mapped, np.int16).reshape(size, dimension)

    def at(self, places: Keys) -> Vectors:
        """Return the vectors [C, D] at places [C], which must exist."""
        copied = np.empty((len(places), self._rows.shape[1]), np.int32)
        copy_rows()(self._rows, np.ascontiguousarray(places, np.int64), copied)
        return rescaled(copied)


def written(batches: Iterable[Batch], folder: Path) -> Iterator[Batch]:
    """Yield batches, and write their vectors into a new file of a version's folder, which is not synced. OSError."""
    with (folder / FILE).open("wb") as file:
        for keys, rows in batches:
            file.write(np.ascontiguousarray(rows, "<f2").data)
            yield keys, rows


@cache
def copy_rows() -> Copy:
    """Return the loop."""
    mask = SIGN_AND_VALUE

    def loop(rows: Any, places: Any, copied: Any) -> None:
        for row in range(len(places)):
            place = places[row]
            for column in range(rows.shape[1]):
                copied[row, column] = (np.int32(rows[place, column]) << np.int32(13)) & mask

    made: Copy = compiled(loop, "void(Array(int16, 2, 'C', readonly=True), int64[::1], int32[:, ::1])")
    return made
