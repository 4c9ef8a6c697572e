"""Features of a store's pictures in a database of their own, which some or all pictures may lack.

They are written and deleted together with the picture's record. The store is stamped with what made them, so that
features that cannot be compared never mix. The stamp has no meaning while no picture has features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.record import pack_key, unpack_key
from landseer.ensemble.store.sums import Sums

T = TypeVar("T")
Keys = npt.NDArray[np.int64]


class StoredFeatures(ABC, Generic[T]):
    """One kind of features in an open store. Threads may share it."""

    name: ClassVar[bytes]
    """Of the database, and of the stamp in `meta`."""
    noun: ClassVar[str]
    """For messages."""

    def __init__(
        self,
        folder: Path,
        environment: Any,
        databases: dict[bytes, Any],
        sums: Sums,
        write: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._folder, self._environment, self._write = folder, environment, write
        self._meta, self._database = databases[b"meta"], databases[self.name]
        self._sums = sums

    @staticmethod
    @abstractmethod
    def pack(features: T, /) -> bytes:
        """Return the bytes of a picture's features. ValueError if they cannot be stored."""

    @staticmethod
    @abstractmethod
    def unpack(data: memoryview, /) -> T:
        """Return what `pack` packed, as copies. ValueError for other bytes."""

    @property
    def made_by(self) -> str:
        """The stamp: what made the stored features; empty if there are none."""
        with self._environment.begin() as transaction:
            return self._stamp(transaction) if self.count(transaction) else ""

    def put(self, transaction: Any, key: bytes, features: T) -> None:
        """Write a picture's features in the transaction of its record. ValueError without a stamp."""
        if not self._stamp(transaction):
            raise ValueError(f"the store has no stamp for {self.noun}; stamp it with what makes them first")
        transaction.put(key, self.pack(features), append=True, db=self._database)

    def read(self, keys: Sequence[int]) -> list[T | None]:
        """Return the features of pictures by key, from one snapshot; None for those without any."""
        with self._environment.begin(db=self._database, buffers=True) as transaction:
            return [self._read(transaction, int(key)) for key in keys]

    def scan(self, *, batch: int = 64, after: int = 0) -> Iterator[tuple[Keys, list[T]]]:
        """Yield keys int64 [n] above `after` and the features of all pictures that have any, in key order.

        Each batch is read in its own transaction, so that a slow consumer does not keep old pages alive.
        """
        while True:
            with self._environment.begin(db=self._database, buffers=True) as transaction:
                cursor = transaction.cursor()
                there = cursor.set_range(pack_key(after + 1))
                pairs = [(unpack_key(key), data) for key, data in islice(cursor, batch)] if there else []
                features = [self._unpacked(transaction, key, data) for key, data in pairs]
            if not pairs:
                return
            yield np.array([key for key, _ in pairs], np.int64), features
            after = pairs[-1][0]

    def count(self, transaction: Any) -> int:
        """Return the number of pictures with features."""
        return int(transaction.stat(self._database)["entries"])

    def nbytes(self, transaction: Any) -> int:
        """Return the bytes of their pages."""
        stat = transaction.stat(self._database)
        pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * int(stat["psize"])

    def _set_stamp(self, made_by: str) -> None:
        with self._write() as transaction:
            transaction.put(self.name, made_by.encode(), db=self._meta)

    def _stamp(self, transaction: Any) -> str:
        return bytes(transaction.get(self.name, b"", db=self._meta)).decode()

    def _read(self, transaction: Any, key: int) -> T | None:
        data = transaction.get(pack_key(key), db=self._database)
        if data is None:
            self._sums.check(transaction, pack_key(key), self.name, None)
            return None
        return self._unpacked(transaction, key, data)

    def _unpacked(self, transaction: Any, key: int, data: memoryview) -> T:
        try:
            features = self.unpack(data)
        except ValueError as error:
            raise StoreUnusable(
                f"{self._folder} is damaged: {self.noun} of record {key}: {error}; "
                "restore it from a backup or index the pictures again"
            ) from error
        self._sums.check(transaction, pack_key(key), self.name, data)
        return features
