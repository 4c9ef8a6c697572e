"""Reads everything that a store keeps about each picture, as it was at one moment, beside a server or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.folder import DATABASES, KEYPOINTS, LOCALS, PATCHES, SUMS, WORDS
from landseer.ensemble.store.record import Record, decode, halves, unpack_key
from landseer.ensemble.store.sums import SUMMED, Sums

FEATURES = (LOCALS, WORDS, KEYPOINTS, PATCHES)
"""What some pictures have; the name of the database is that of its stamp, too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeRecord:
    """A picture with all that is kept about it."""

    key: int
    record: Record
    """Without features."""
    features: dict[str, bytes] = field(default_factory=dict)
    """Those that it has, as the store packs them, by name: locals, words, keypoints, patches."""

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        record = self.record
        arrays = (record.descriptor, record.query_vector, record.clusters, record.boxes, record.feature_map)
        return sum(one.nbytes for one in arrays) + len(record.thumbnail) + sum(map(len, self.features.values()))


class WholeStore:
    """A store as a transaction sees it."""

    def __init__(self, folder: Path, environment: Any, transaction: Any) -> None:
        self._folder, self._transaction = folder, transaction
        names = {bytes(name) for name, _ in transaction.cursor()} & set(DATABASES)
        self._databases = {name: environment.open_db(name, txn=transaction, create=False) for name in names}
        # Stores of older releases have no checksums, and lack some databases.
        self._sums = Sums(folder, self._databases) if {SUMS, *SUMMED} <= names else None

    @property
    def fingerprint(self) -> str:
        """Of the profile of its vectors."""
        return self._meta(b"fingerprint").decode()

    @property
    def sequence(self) -> int:
        """Number of changes so far."""
        return unpack_key(self._meta(b"sequence"))

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return self._count(b"records")

    @property
    def stamps(self) -> dict[str, str]:
        """What made the features that are there, by name."""
        return {name.decode(): self._meta(name).decode() for name in FEATURES if self._count(name)}

    def records(self) -> Iterator[WholeRecord]:
        """Yield all pictures in the order in which they were written. StoreUnusable for one that is damaged."""
        for key, data in self._transaction.cursor(self._databases[b"records"]):
            yield self._whole(bytes(key), data)

    def _whole(self, key: bytes, data: memoryview) -> WholeRecord:
        self._check(key, b"records", data)
        vectors = {name: halves(self._value(key, name) or b"") for name in (b"descriptors", b"clusters")}
        thumbnail = self._value(key, b"thumbnails") or b""
        found = {name.decode(): self._value(key, name) for name in FEATURES if name in self._databases}
        try:
            record = decode(
                data, descriptor=vectors[b"descriptors"], clusters=vectors[b"clusters"], thumbnail=thumbnail
            )
            clusters = record.clusters.reshape(-1, max(1, len(record.query_vector)))
        except ValueError as error:
            raise StoreUnusable(
                f"{self._folder} is damaged: record {unpack_key(key)}: {error}; "
                "restore it from a backup or index the pictures again"
            ) from error
        features = {name: value for name, value in found.items() if value is not None}
        return WholeRecord(key=unpack_key(key), record=replace(record, clusters=clusters), features=features)

    def _value(self, key: bytes, name: bytes) -> bytes | None:
        found = self._transaction.get(key, db=self._databases[name])
        self._check(key, name, found)
        return None if found is None else bytes(found)

    def _check(self, key: bytes, name: bytes, value: memoryview | None) -> None:
        if self._sums is not None and name in SUMMED:
            self._sums.check(self._transaction, key, name, value)

    def _count(self, name: bytes) -> int:
        return int(self._transaction.stat(self._databases[name])["entries"]) if name in self._databases else 0

    def _meta(self, name: bytes) -> bytes:
        return bytes(self._transaction.get(name, b"", db=self._databases[b"meta"]))
