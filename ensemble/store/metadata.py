"""The metadata of a store's pictures, read in a scan, and the numbers of its changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.record import metadata_of, pack_key, unpack_key
from landseer.ensemble.store.sums import Sums

Keys = NDArray[np.int64]


class StoredMetadata:
    """The ids and metadata in an open store. Threads may share it."""

    def __init__(self, folder: Path, environment: Any, databases: dict[bytes, Any], sums: Sums) -> None:
        self._folder, self._environment, self._databases, self._sums = folder, environment, databases, sums

    def sequence(self) -> int:
        """Return the number of the last change."""
        with self._environment.begin() as transaction:
            return unpack_key(transaction.get(b"sequence", pack_key(0), db=self._databases[b"meta"]))

    def ids(self, prefix: str = "") -> tuple[Keys, list[str]]:
        """Return the keys [n] and ids of the pictures whose ids start with a prefix, in the order of their ids."""
        first, keys, ids = prefix.encode(), list[int](), list[str]()
        with self._environment.begin(db=self._databases[b"ids"]) as transaction:
            cursor = transaction.cursor()
            there = cursor.set_range(first) if first else cursor.first()
            for id, key in cursor if there else ():
                if not id.startswith(first):
                    break
                keys.append(unpack_key(key))
                ids.append(id.decode())
        return np.array(keys, np.int64), ids

    def scan(self, *, batch: int = 4096, after: int = 0) -> Iterator[tuple[Keys, list[dict[str, str]]]]:
        """Yield keys [n] and the metadata of all pictures of keys above `after`, in key order.

        Each batch is read in its own transaction, so that a slow consumer does not keep old pages alive. StoreUnusable
        for a record that is damaged.
        """
        while True:
            keys, metadata = self._batch(after + 1, batch)
            if not len(keys):
                return
            yield keys, metadata
            after = int(keys[-1])

    def sample(self, *, places: int = 16, each: int = 64) -> list[dict[str, str]]:
        """Return the metadata of some pictures from all over the store, or of all of a few; none of damaged parts."""
        last, found = self.sequence(), list[dict[str, str]]()
        next_key = 1
        for first in range(1, last + 1, max(each, last // places)):
            with suppress(StoreUnusable):
                keys, metadata = self._batch(max(first, next_key), each)
                found += metadata
                next_key = int(keys.max(initial=0)) + 1
        return found

    def _batch(self, first: int, count: int) -> tuple[Keys, list[dict[str, str]]]:
        keys, metadata = [], []
        with self._environment.begin(buffers=True) as transaction:
            cursor = transaction.cursor(self._databases[b"records"])
            there = cursor.set_range(pack_key(first))
            for key, data in islice(cursor, count) if there else ():
                self._sums.check(transaction, bytes(key), b"records", data)
                keys.append(unpack_key(key))
                metadata.append(self._metadata(keys[-1], data))
        return np.array(keys, np.int64), metadata

    def _metadata(self, key: int, data: memoryview) -> dict[str, str]:
        try:
            return metadata_of(data)
        except ValueError as error:
            said = f"{self._folder} is damaged: record {key}: {error}"
            raise StoreUnusable(f"{said}; restore it from a backup or index the pictures again") from error
