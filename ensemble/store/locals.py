"""The local features of a store's pictures, in a separate database that may be empty.

A picture has them if it was indexed by a server that stores them; they are written and deleted together with its
record. The store is stamped with the SHA-256 of the models that make local descriptors (`Profile.locals_sha256`), so
that those of different models never mix. The stamp has no meaning while no picture has local features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.errors import ProfileMismatch, StoreUnusable
from landseer.ensemble.store.folder import LOCALS
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.record import pack_key, unpack_key

_STAMP = b"locals"


class Locals:
    """The local features in an open store. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        environment: Any,
        databases: dict[bytes, Any],
        write: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._folder, self._environment, self._write = folder, environment, write
        self._meta, self._database = databases[b"meta"], databases[LOCALS]

    @property
    def sha256(self) -> str:
        """The stamp: SHA-256 of the models that made the stored local features; empty if there are none."""
        with self._environment.begin() as transaction:
            return self._stamp(transaction) if self.count(transaction) else ""

    def stamp(self, sha256: str) -> None:
        """Stamp the store. ProfileMismatch if it has local features of other models, or `sha256` is empty."""
        if not sha256:
            raise ProfileMismatch(
                "the served models have no local descriptors; export them again with this release, "
                "or start the server without --local-features"
            )
        if (there := self.sha256) not in ("", sha256):
            raise ProfileMismatch(
                f"the local features in {self._folder} were made by other models than are served now: SHA-256 "
                f"{there[:12]} in the store, {sha256[:12]} served. Serve those models, index the pictures again into "
                "another folder, or start the server without --local-features"
            )
        if not there:
            with self._write() as transaction:
                transaction.put(_STAMP, sha256.encode(), db=self._meta)

    def put(self, transaction: Any, key: bytes, features: LocalFeatures) -> None:
        """Write a picture's local features in the transaction of its record. ValueError without a stamp."""
        if not self._stamp(transaction):
            raise ValueError("the store has no stamp for local features; open it with locals_sha256")
        transaction.put(key, pack_features(features), append=True, db=self._database)

    def read(self, keys: Sequence[int]) -> list[LocalFeatures | None]:
        """Return the local features of pictures by key, from one snapshot; None for those without any."""
        with self._environment.begin(db=self._database, buffers=True) as transaction:
            found = [transaction.get(pack_key(int(key))) for key in keys]
            return [None if data is None else self._unpacked(key, data) for key, data in zip(keys, found, strict=True)]

    def scan(self, *, batch: int = 64, after: int = 0) -> Iterator[tuple[npt.NDArray[np.int64], list[LocalFeatures]]]:
        """Yield keys int64 [n] above `after` and the local features of all pictures that have any, in key order.

        Each batch is read in its own transaction, so that a slow consumer does not keep old pages alive.
        """
        while True:
            with self._environment.begin(db=self._database, buffers=True) as transaction:
                cursor = transaction.cursor()
                there = cursor.set_range(pack_key(after + 1))
                pairs = [(unpack_key(key), data) for key, data in islice(cursor, batch)] if there else []
                features = [self._unpacked(key, data) for key, data in pairs]
            if not pairs:
                return
            yield np.array([key for key, _ in pairs], np.int64), features
            after = pairs[-1][0]

    def count(self, transaction: Any) -> int:
        """Return the number of pictures with local features."""
        return int(transaction.stat(self._database)["entries"])

    def nbytes(self, transaction: Any) -> int:
        """Return the bytes of their pages."""
        stat = transaction.stat(self._database)
        pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * int(stat["psize"])

    def _stamp(self, transaction: Any) -> str:
        return bytes(transaction.get(_STAMP, b"", db=self._meta)).decode()

    def _unpacked(self, key: int, data: memoryview) -> LocalFeatures:
        try:
            return unpack_features(data)
        except ValueError as error:
            raise StoreUnusable(
                f"{self._folder} is damaged: local features of record {key}: {error}; "
                "restore it from a backup or index the pictures again"
            ) from error
