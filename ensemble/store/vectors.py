"""The vectors of a store: descriptors, raw or augmented, and clusters, read by key or in a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.store.augmented import Augmented
from landseer.ensemble.store.folder import DATA
from landseer.ensemble.store.read_ahead import ReadAhead
from landseer.ensemble.store.record import HALF, halves, pack_key, unpack_key
from landseer.ensemble.store.sums import Sums
from landseer.ensemble.store.widening import widened


class Vectors:
    """The vectors of an open store. Threads may share it."""

    def __init__(
        self,
        environment: Any,
        databases: dict[bytes, Any],
        augmented: Augmented,
        sums: Sums,
        *,
        clusters: tuple[int, int],
    ) -> None:
        self._environment, self._databases, self._sums = environment, databases, sums
        self._augmented, self._clusters = augmented, clusters

    def clusters(self, keys: Sequence[int]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
        """Return cluster vectors float16 [C, K, P], zero beyond each picture's count, and the counts int32 [C].

        A missing key, such as that of a picture deleted meanwhile, has a count of 0.
        """
        with self._environment.begin(db=self._databases[b"clusters"], buffers=True) as transaction:

            def read(key: bytes) -> memoryview | bytes:
                found = transaction.get(key)
                self._sums.check(transaction, key, b"clusters", found)
                return found or b""

            return padded((read(pack_key(int(key))) for key in keys), len(keys), self._clusters)

    def descriptors(self, keys: Sequence[int], *, augmented: bool = False) -> npt.NDArray[np.float32]:
        """Return descriptors as float32 [C, D]; zeros for a missing key. D is 0 if all are missing.

        augmented: return augmented vectors where there are any.
        """
        with self._environment.begin(buffers=True) as transaction:
            read = self.reader(transaction, augmented=augmented)
            found = [bytes(read(pack_key(int(key)))) for key in keys]
        return stacked(found)

    def keys(self, *, upto: int) -> npt.NDArray[np.int64]:
        """Return the keys int64 [n] of all pictures, ascending, as far as they are not above `upto`.

        They come from the ids, as LMDB's cursor touches the value of each key that it passes: of a million vectors that
        would read 4 GB, a minute of a start from a disk.
        """
        found: list[bytes] = []
        with self._environment.begin(db=self._databases[b"ids"]) as transaction:
            cursor = transaction.cursor().iternext(keys=False)
            # In parts, as joining a million keys at once would keep all other threads waiting for a third of a second.
            while part := b"".join(islice(cursor, 4096)):
                found.append(part)
        keys = np.sort(np.frombuffer(b"".join(found), ">i8").astype(np.int64))
        return keys[: np.searchsorted(keys, upto, side="right")]

    def scan(
        self, *, batch: int = 4096, after: int = 0, augmented: bool = False, ahead: bool = True
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
        """Yield keys int64 [n] and descriptors float16 [n, D] of all pictures of keys above `after`, in key order.

        Each batch is read in its own transaction, so that a slow consumer does not keep old pages alive.
        augmented: return augmented vectors where there are any. ahead: read the file ahead, all of it.
        """
        with self._environment.begin(db=self._databases[b"descriptors"]) as transaction:
            total, done = max(1, transaction.stat()["entries"]), 0
        with ReadAhead(Path(self._environment.path()) / DATA) if ahead else nullcontext() as reading:
            while True:
                keys, rows = self._batch(after + 1, batch, augmented=augmented)
                if not len(keys):
                    return
                yield keys, rows
                after, done = int(keys[-1]), done + len(keys)
                if reading is not None:
                    reading.reached(done / total)

    def reader(self, transaction: Any, *, augmented: bool = False) -> Callable[[bytes], memoryview]:
        """Return a function that reads the vector of a key, augmented if wanted and there is one; empty if missing."""
        raw = self._databases[b"descriptors"]
        current = self._augmented.read(transaction) if augmented else None

        def read(key: bytes) -> memoryview:
            better: memoryview | None = transaction.get(key, db=current[1]) if current else None
            if better:
                return better
            found: memoryview | None = transaction.get(key, db=raw)
            self._sums.check(transaction, key, b"descriptors", found)
            return memoryview(b"") if found is None else found

        return read

    def _batch(
        self, first: int, count: int, *, augmented: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        with self._environment.begin(buffers=True) as transaction:
            read = self.reader(transaction, augmented=augmented)
            cursor = transaction.cursor(self._databases[b"descriptors"])
            there = cursor.set_range(pack_key(first))
            found = [bytes(key) for key in islice(cursor.iternext(values=False), count)] if there else []
            rows = [halves(read(key)) for key in found]
        keys = np.fromiter((unpack_key(key) for key in found), np.int64, len(found))
        return keys, np.array(rows, np.float16)


def stacked(rows: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return stored vectors as float32 [C, D]; zeros for an empty one. D is 0 if all are empty."""
    most = max(map(len, rows), default=0)
    data = b"".join(row.ljust(most, b"\0") for row in rows)
    return widened(np.frombuffer(data, HALF).reshape(len(rows), most // HALF.itemsize))


def padded(
    stored: Iterable[memoryview | bytes], count: int, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
    """Return the stored clusters of `count` pictures as float16 [C, K, P], zero beyond their numbers, and these [C].

    shape: K and P.
    """
    most, size = shape
    vectors, counts = np.zeros((count, most, size), np.float16), np.zeros(count, np.int32)
    for row, data in enumerate(stored):
        flat = np.frombuffer(data, HALF)
        counts[row] = len(flat) // size
        vectors[row, : counts[row]] = flat.reshape(-1, size)
    return vectors, counts
