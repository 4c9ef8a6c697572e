"""The store, which is the truth: every indexed picture, in one LMDB environment, changed by transactions only.

Databases: `meta`; `ids` (id to key); by key (eight bytes, big-endian) `records`, `descriptors`, `clusters` and
`thumbnails`, each apart so that reading vectors touches nothing else; and those of `augmented`, `locals`
and `words`. A key is the sequence number of the change that wrote the record, so keys grow, are never used again,
and serve as the ids of every index made from the store.

A commit returns once its pages are on the disk (fsync), and LMDB never overwrites a live page: a process killed at any
moment loses nothing that it acknowledged. One process serves a store at a time; its threads read side by side.

Bytes per picture, measured over 5,000 pictures written 64 at a time, with D = 1280, ten clusters of 512, 500 local
features, 8 boxes, 100 bytes of metadata and a thumbnail of 8 KB:

    descriptors   4.0 KiB   2,560 bytes in a page of 4,096
    clusters     12.0 KiB   10,240 bytes in three pages
    records       4.0 KiB   about 3,500 bytes in one page
    thumbnails    8.0 KiB   none if they are switched off
    together     28.1 KiB   so 16 GiB hold about 590,000 pictures
    augmented     4.0 KiB   none unless `landseer augment` wrote them; twice that while it runs again
    locals       68.0 KiB   none unless asked for; 67,012 bytes in 17 pages, and as much again for each region
    words         4.0 KiB   none without a codebook; 20 bytes a word

There and on two cores, 4,600 records a second are written, and the 1,000 short-listed cluster blocks are read in 7 ms.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import NotFound, ProfileMismatch, StoreFull, StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.store.augmented import Augmented
from landseer.ensemble.store.folder import (
    DATA,
    DATABASES,
    LATER,
    FolderLock,
    is_full,
    no_store,
    open_environment,
    prepare_folder,
    require_whole,
    reserve,
    stamp,
)
from landseer.ensemble.store.locals import Locals
from landseer.ensemble.store.record import (
    Record,
    StoreChange,
    Stored,
    StoreStats,
    check_id,
    check_metadata,
    check_record,
    decode,
    encode,
    halves,
    pack_key,
    to_bytes,
    unpack_key,
)
from landseer.ensemble.store.vectors import Vectors
from landseer.ensemble.store.words import StoredWords

__all__ = ["Record", "Store", "StoreChange", "StoreStats", "StoreUnusable", "Stored", "check_id", "check_metadata"]

MIN_LIMIT_BYTES = 2**20
_DOUBLE = struct.Struct(">d")


class Store:
    """An open store. Threads may share it. Close it once they have ended."""

    def __init__(
        self, folder: Path, lock: FolderLock, environment: Any, *, clusters: tuple[int, int], limit: int
    ) -> None:
        """Use `open` instead."""
        self._folder, self._lock, self._environment = folder, lock, environment
        self._clusters, self._limit = clusters, limit
        self._databases = {name: environment.open_db(name) for name in DATABASES}
        self._writing = threading.Lock()
        self.augmented = Augmented(environment, self._databases, self._write)
        """The augmented vectors and the job that writes them."""
        self.vectors = Vectors(environment, self._databases, self.augmented, clusters=clusters)
        """Descriptors and clusters, to be read."""
        self.locals = Locals(folder, environment, self._databases, partial(self._write, grows=False))
        self.words = StoredWords(environment, self._databases, self._write)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        fingerprint: str | None,
        limit_bytes: int = 16 * 2**30,
        clusters_shape: tuple[int, int] = (Sizes.clusters, Sizes.reduced),
        locals_sha256: str | None = None,
    ) -> Store:
        """Open the store in a folder, or make one there; limit_bytes may differ from last time.

        fingerprint: of the profile whose vectors it holds; None takes a store as it is and makes none. clusters_shape:
        K, most clusters of a picture, and P, their size. locals_sha256: of what makes local features, to take pictures
        with them. ProfileMismatch if fingerprint or local features are others than those there; StoreUnusable if the
        folder is something else, is damaged, or is in use; StoreFull if the disk is; ValueError for a limit below 1
        MiB.
        """
        if limit_bytes < MIN_LIMIT_BYTES:
            raise ValueError(f"a store's limit is {limit_bytes} bytes; it must be at least {MIN_LIMIT_BYTES}")
        if fingerprint is None and not (path / DATA).exists():
            raise no_store(path)
        lock = FolderLock(prepare_folder(path))
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            environment = open_environment(path, limit_bytes=limit_bytes // 4096 * 4096, meminit=False)
            undo.callback(environment.close)
            require_whole(path, environment)
            environment.reader_check()
            stamp(path, environment, fingerprint)
            store = cls(path, lock, environment, clusters=clusters_shape, limit=limit_bytes)
            if locals_sha256 is not None:
                store.locals.stamp(locals_sha256)
            undo.pop_all()
        return store

    def put_many(self, records: Sequence[Record]) -> list[StoreChange]:
        """Write records in one transaction, all or none; a record of the same id is replaced, even within the call.

        InvalidInput names an id or metadata that cannot be kept; StoreFull if the limit or the disk is reached;
        ValueError for arrays of another dtype or shape.
        """
        for record in records:
            check_record(record, clusters=self._clusters)
        with self._write() as transaction:
            return [self._put(transaction, record) for record in records]

    def delete(self, id: str) -> StoreChange:
        """Take a picture out; the change's replaced_key is the key it had. NotFound if there is none of that id."""
        with self._write(grows=False) as transaction:
            key = self._key(transaction, id)
            self._remove(transaction, key)
            transaction.delete(id.encode(), db=self._databases[b"ids"])
            return StoreChange(key=self._next(transaction), replaced_key=unpack_key(key))

    def get(self, id: str) -> Stored:
        """Return a picture's record, whole. NotFound if there is none of that id."""
        with self._environment.begin(buffers=True) as transaction:
            key = self._key(transaction, id)
            found = self._stored(transaction, key, thumbnails=True, vectors=self.vectors.reader(transaction))
        if found is None:
            raise self._damaged(f"id {id!r} leads to record {unpack_key(key)}, which is not there")
        return found

    def by_keys(
        self, keys: Sequence[int], *, thumbnails: bool = False, vectors: bool = True, augmented: bool = False
    ) -> list[Stored | None]:
        """Return the records of keys in that order, from one moment; None for a key that is not there.

        Without `vectors` descriptor and clusters have no rows, and their pages are not read. With `augmented` the
        augmented vector stands in the place of the descriptor where there is one.
        """
        with self._environment.begin(buffers=True) as transaction:
            read = self.vectors.reader(transaction, augmented=augmented) if vectors else None
            return [self._stored(transaction, pack_key(key), thumbnails=thumbnails, vectors=read) for key in keys]

    def stats(self) -> StoreStats:
        """Return the store's figures at this moment."""
        with self._environment.begin() as transaction:
            meta = self._databases[b"meta"]
            changed = transaction.get(b"last_change", db=meta)
            augmentation, slot = self.augmented.read(transaction) or (None, None)
            return StoreStats(
                pictures=transaction.stat(self._databases[b"records"])["entries"],
                sequence=unpack_key(transaction.get(b"sequence", pack_key(0), db=meta)),
                used_bytes=self._used(transaction),
                limit_bytes=self._limit,
                last_change=_DOUBLE.unpack(changed)[0] if changed else None,
                file_bytes=(self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"],
                augmentation=augmentation,
                augmented=transaction.stat(slot)["entries"] if slot else 0,
                locals=self.locals.count(transaction),
                locals_bytes=self.locals.nbytes(transaction),
            )

    def close(self) -> None:
        """Close the store and let another process have it. May be called twice."""
        with self._writing:
            self._environment.close()
            self._lock.release()

    @contextlib.contextmanager
    def _write(self, *, grows: bool = True) -> Iterator[Any]:
        """Give a transaction that is committed at the end, or leaves no trace; StoreFull if there is no room.

        grows: whether it leaves the reserve alone, from which a full store is emptied.
        """
        with self._writing:
            try:
                with self._environment.begin(write=True) as transaction:
                    yield transaction
                    if grows and self._used(transaction) > self._limit - reserve(self._limit):
                        raise self._full("its limit is reached")
            except lmdb.MapFullError as error:
                raise self._full("its limit is reached") from error
            except lmdb.Error as error:
                if is_full(error, self._folder):
                    raise self._full("the disk is full") from error
                raise StoreUnusable(
                    f"{self._folder}: a change failed and was undone: {error}; see to the disk"
                ) from error

    def _put(self, transaction: Any, record: Record) -> StoreChange:
        self._require_size(transaction, len(record.descriptor))
        ids = self._databases[b"ids"]
        former = transaction.get(record.id.encode(), db=ids)
        if former is not None:
            self._remove(transaction, former)
        number = self._next(transaction)
        key = pack_key(number)
        values = {b"records": encode(record), b"descriptors": to_bytes(record.descriptor)}
        values |= {b"clusters": to_bytes(record.clusters), b"thumbnails": record.thumbnail}
        for name, value in values.items():
            # Keys only grow, so every page is filled to its end.
            transaction.put(key, value, append=True, db=self._databases[name])
        if record.locals is not None:
            self.locals.put(transaction, key, record.locals)
        if record.words is not None:
            self.words.put(transaction, key, record.words)
        transaction.put(record.id.encode(), key, db=ids)
        return StoreChange(key=number, replaced_key=None if former is None else unpack_key(former))

    def _remove(self, transaction: Any, key: bytes) -> None:
        for name in (b"records", b"descriptors", b"clusters", b"thumbnails", *LATER):
            transaction.delete(key, db=self._databases[name])

    def _next(self, transaction: Any) -> int:
        meta = self._databases[b"meta"]
        number = unpack_key(transaction.get(b"sequence", pack_key(0), db=meta)) + 1
        transaction.put(b"sequence", pack_key(number), db=meta)
        transaction.put(b"last_change", _DOUBLE.pack(time.time()), db=meta)
        return number

    def _require_size(self, transaction: Any, size: int) -> None:
        """Hold every descriptor to the size of the first."""
        meta = self._databases[b"meta"]
        stamped = transaction.get(b"descriptor_size", db=meta)
        if stamped is None:
            transaction.put(b"descriptor_size", pack_key(size), db=meta)
        elif unpack_key(stamped) != size:
            raise ProfileMismatch(f"a descriptor has {size} values; those in {self._folder} have {unpack_key(stamped)}")

    def _key(self, transaction: Any, id: str) -> bytes:
        check_id(id)
        key = transaction.get(id.encode(), db=self._databases[b"ids"])
        if key is None:
            raise NotFound(f"no picture of id {id!r} is indexed; ids are case-sensitive")
        return bytes(key)

    def _stored(
        self, transaction: Any, key: bytes, *, thumbnails: bool, vectors: Callable[[bytes], memoryview] | None
    ) -> Stored | None:
        data = transaction.get(key, db=self._databases[b"records"])
        if data is None:
            return None

        def value(name: bytes, wanted: bool) -> bytes:
            return bytes(transaction.get(key, b"", db=self._databases[name])) if wanted else b""

        clusters, thumbnail = halves(value(b"clusters", vectors is not None)), value(b"thumbnails", thumbnails)
        descriptor = halves(vectors(key) if vectors else b"")
        try:
            clusters = clusters.reshape(-1, self._clusters[1])
            record = decode(data, descriptor=descriptor, clusters=clusters, thumbnail=thumbnail)
        except ValueError as error:
            raise self._damaged(f"record {unpack_key(key)}: {error}") from error
        return Stored(key=unpack_key(key), record=record)

    def _used(self, transaction: Any) -> int:
        """Count the bytes of pages that hold data; those that were freed are not among them."""
        kinds = ("branch_pages", "leaf_pages", "overflow_pages")
        stats = [transaction.stat(database) for database in self._databases.values()]
        return sum(stat[kind] * stat["psize"] for stat in stats for kind in kinds)

    def _full(self, why: str) -> StoreFull:
        return StoreFull(
            f"{self._folder} takes no more: {why} (its limit is {self._limit / 2**20:,.0f} MiB); nothing was written. "
            "Delete pictures, raise the store's limit or free space on the disk"
        )

    def _damaged(self, what: str) -> StoreUnusable:
        return StoreUnusable(f"{self._folder} is damaged: {what}; restore it from a backup or index the pictures again")
