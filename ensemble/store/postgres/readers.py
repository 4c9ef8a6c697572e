"""What is read of a store in PostgreSQL beside whole records: vectors, metadata, features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.postgres.database import Database
from landseer.ensemble.store.record import metadata_of
from landseer.ensemble.store.vectors import padded, stacked

T = TypeVar("T")
Keys = NDArray[np.int64]
NUL = "\0"
"""PostgreSQL's texts have none, and neither have ids."""


def parts_of(cursor: Any, part: str, keys: Sequence[int]) -> list[bytes | None]:
    """Return a part of the pictures under keys, in that order; None for those that are missing or have none."""
    wanted = [int(key) for key in keys]
    cursor.execute(f"SELECT key, {part} FROM landseer_pictures WHERE key = ANY(%s)", (wanted,))
    found = dict(cursor.fetchall())
    return [found.get(key) for key in wanted]


def damaged(database: Database, key: int, error: ValueError) -> StoreUnusable:
    """Return the error for a record that cannot be read."""
    return StoreUnusable(
        f"the store {database.address} is damaged: record {key}: {error}; restore it from a backup, or index the "
        "picture again"
    )


class SharedVectors:
    """The vectors of a store. Threads may share it."""

    def __init__(self, database: Database, *, clusters: tuple[int, int]) -> None:
        self._database, self._clusters = database, clusters

    def clusters(self, keys: Sequence[int]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """See `record_store.VectorReader`."""
        with self._database.reading() as cursor:
            found = parts_of(cursor, "clusters", keys)
        return padded((data or b"" for data in found), len(found), self._clusters)

    def descriptors(self, keys: Sequence[int], *, augmented: bool = False) -> NDArray[np.float32]:
        """See `record_store.VectorReader`. There are no augmented ones."""
        with self._database.reading() as cursor:
            return stacked([data or b"" for data in parts_of(cursor, "descriptor", keys)])


class SharedMetadata:
    """The ids and metadata of a store. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sequence(self) -> int:
        """Return the number of the last change."""
        with self._database.probing() as cursor:
            return int(cursor.execute("SELECT sequence FROM landseer_store").fetchone()[0])

    def ids(self, prefix: str = "") -> tuple[Keys, list[str]]:
        """Return the keys [n] and ids of the pictures whose ids start with a prefix, in the order of their ids."""
        if NUL in prefix:
            return np.empty(0, np.int64), []
        with self._database.reading() as cursor:
            cursor.execute(
                "SELECT key, id FROM landseer_pictures WHERE id >= %s AND starts_with(id, %s) ORDER BY id",
                (prefix, prefix),
            )
            found = cursor.fetchall()
        return np.array([key for key, _ in found], np.int64), [id for _, id in found]

    def scan(self, *, batch: int = 4096, after: int = 0) -> Iterator[tuple[Keys, list[dict[str, str]]]]:
        """Yield keys [n] and the metadata of all pictures of keys above `after`, in key order. StoreUnusable."""
        for keys, records in scanned(self._database, "record", batch=batch, after=after):
            yield keys, [self._metadata(*pair) for pair in zip(keys.tolist(), records, strict=True)]

    def sample(self, *, most: int = 1024) -> list[dict[str, str]]:
        """Return the metadata of some pictures from all over the store, or of all of a few."""
        with self._database.reading() as cursor:
            cursor.execute(
                "SELECT key, record FROM landseer_pictures, landseer_store WHERE key %% greatest(1, pictures / %s) = 0 "
                "LIMIT %s",
                (most, most),
            )
            return [self._metadata(*row) for row in cursor.fetchall()]

    def _metadata(self, key: int, data: bytes) -> dict[str, str]:
        try:
            return metadata_of(data)
        except ValueError as error:
            raise damaged(self._database, key, error) from error


class SharedFeatures(Generic[T]):
    """One kind of features of a store. Threads may share it."""

    def __init__(self, database: Database, part: str, unpack: Callable[[bytes], T]) -> None:
        """part: the column. unpack: reads what it holds; ValueError for other bytes."""
        self._database, self._part, self._unpack = database, part, unpack

    def read(self, keys: Sequence[int]) -> list[T | None]:
        """Return the features of pictures by key, from one snapshot; None for those without any. StoreUnusable."""
        with self._database.reading() as cursor:
            found = parts_of(cursor, self._part, keys)
        return [None if data is None else self._unpacked(key, data) for key, data in zip(keys, found, strict=True)]

    def scan(self, *, batch: int = 64, after: int = 0) -> Iterator[tuple[Keys, list[T]]]:
        """Yield keys [n] above `after` and the features of all pictures that have any, in key order. StoreUnusable."""
        for keys, data in scanned(self._database, self._part, batch=batch, after=after):
            yield keys, [self._unpacked(*pair) for pair in zip(keys.tolist(), data, strict=True)]

    def _unpacked(self, key: int, data: bytes) -> T:
        try:
            return self._unpack(data)
        except ValueError as error:
            raise damaged(self._database, key, error) from error


def scanned(database: Database, part: str, *, batch: int, after: int) -> Iterator[tuple[Keys, list[bytes]]]:
    """Yield keys [n] above `after` and a part of all pictures that have it, in key order."""
    while True:
        with database.reading() as cursor:
            cursor.execute(
                f"SELECT key, {part} FROM landseer_pictures WHERE key > %s AND {part} IS NOT NULL "
                "ORDER BY key LIMIT %s",
                (after, batch),
            )
            found = cursor.fetchall()
        if not found:
            return
        yield np.array([key for key, _ in found], np.int64), [data for _, data in found]
        after = found[-1][0]
