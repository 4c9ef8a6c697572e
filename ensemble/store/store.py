"""The store: every indexed picture, in one LMDB environment, changed only by transactions.

Databases: `meta`; `ids` (id to key); by key (eight bytes, big-endian) `records`, `descriptors`, `clusters` and
`thumbnails`, separate so that reading vectors touches nothing else; and those of `augmented`, `locals`, `words`,
`keypoints` and `patches`. A key is the sequence number of the change that wrote the record, so keys increase, are never
reused, and serve as ids in every index built from the store.

A commit returns once its pages are on disk (fsync), and LMDB never overwrites a live page, so a process killed at any
time loses nothing it acknowledged. Only one process may use a store at a time; its threads read concurrently.

Bytes per picture, measured over 5,000 pictures written 64 at a time, with D = 1280, ten clusters of 512, 500 local
features, 8 boxes and 100 bytes of metadata; thumbnails over 831 photographs, 15.5 KB in the mean:

    descriptors   4.0 KiB   2,560 bytes in a page of 4,096
    clusters     12.0 KiB   10,240 bytes in three pages
    records       4.0 KiB   about 3,500 bytes in one page
    thumbnails   17.0 KiB   optional
    together     37.1 KiB   so 16 GiB hold about 450,000 pictures
    augmented     4.0 KiB   only after `landseer augment`; twice that while it runs again
    locals       68.0 KiB   optional; 67,012 bytes in 17 pages, and the same again for each region
    words         4.0 KiB   only with local features and a codebook; 20 bytes per word
    keypoints    24.0 KiB   1,000 of them; 24,006 bytes in six pages
    patches       8.0 KiB   388 of them; 8,154 bytes in two pages

With these sizes, two cores write 4,600 records per second, and read the clusters of 1,000 candidates in 7 ms.
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
from landseer.ensemble.store.index_tokens import IndexTokens
from landseer.ensemble.store.keypoints import StoredKeypoints
from landseer.ensemble.store.listing import Page, PageQuery, Wanted, page_of, rows_of
from landseer.ensemble.store.locals import Locals
from landseer.ensemble.store.metadata import StoredMetadata
from landseer.ensemble.store.mounts import require_local
from landseer.ensemble.store.outbox import Outbox
from landseer.ensemble.store.patches import StoredPatches
from landseer.ensemble.store.record import (
    Record,
    StoreChange,
    Stored,
    StoreStats,
    check_id,
    check_record,
    decode,
    encode,
    halves,
    pack_key,
    to_bytes,
    unpack_key,
)
from landseer.ensemble.store.sums import Sums
from landseer.ensemble.store.vectors import Vectors
from landseer.ensemble.store.words import StoredWords

MIN_LIMIT_BYTES = 2**20
_DOUBLE = struct.Struct(">d")


class Store:
    """An open store. Threads may share it. Close it after they have finished."""

    def __init__(
        self, folder: Path, lock: FolderLock, environment: Any, *, clusters: tuple[int, int], limit: int
    ) -> None:
        """Call `open` instead."""
        self._folder, self._lock, self._environment = folder, lock, environment
        self._clusters, self._limit = clusters, limit
        self._databases = {name: environment.open_db(name) for name in DATABASES}
        self._writing = threading.Lock()
        self.augmented = Augmented(environment, self._databases, self._write)
        """The augmented vectors and the job that writes them."""
        self._sums = Sums(folder, self._databases)
        self.vectors = Vectors(environment, self._databases, self.augmented, self._sums, clusters=clusters)
        """Read access to descriptors and clusters."""
        self.metadata = StoredMetadata(folder, environment, self._databases, self._sums)
        """Read access to all ids and metadata."""
        stamped = partial(self._write, grows=False)
        self.locals = Locals(folder, environment, self._databases, self._sums, stamped)
        self.keypoints = StoredKeypoints(folder, environment, self._databases, self._sums, stamped)
        self.patches = StoredPatches(folder, environment, self._databases, self._sums, stamped)
        self.words = StoredWords(environment, self._databases, self._write)
        self.outbox = Outbox(environment, self._databases, self.vectors, partial(self._write, grows=False))
        """What an index outside the process has not seen."""
        self.index_tokens = IndexTokens(environment, self._databases[b"meta"], partial(self._write, grows=False))

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        fingerprint: str | None,
        limit_bytes: int = 16 * 2**30,
        clusters_shape: tuple[int, int] = (Sizes.clusters, Sizes.reduced),
        locals_sha256: str | None = None,
        codebook: str | None = None,
        patches_sha256: str | None = None,
        network: bool = False,
    ) -> Store:
        """Open the store in a folder, or create one; limit_bytes may change between runs.

        fingerprint: of the profile of its vectors; None accepts any existing store and creates none. clusters_shape: K,
        most clusters of a picture, and P, their size. locals_sha256: of the models that make deep local features; None
        if they are not stored. codebook: fingerprint of the codebook of keypoints; None if they are not stored.
        patches_sha256: of the models that make patches; None if they are not stored. network: whether the folder may
        be on a file system of another machine.
        ProfileMismatch if the store has another fingerprint, other local features or keypoints; StoreUnusable if the
        folder is not a store, is damaged, or is in use; StoreFull if the disk is full; ValueError for a limit below
        1 MiB.
        """
        if limit_bytes < MIN_LIMIT_BYTES:
            raise ValueError(f"got a store limit of {limit_bytes} bytes; expected at least {MIN_LIMIT_BYTES}")
        if fingerprint is None and not (path / DATA).exists():
            raise no_store(path)
        if not network:
            require_local(path)
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
            if codebook is not None:
                store.keypoints.stamp(codebook)
            if patches_sha256 is not None:
                store.patches.stamp(patches_sha256)
            undo.pop_all()
        return store

    def put_many(self, records: Sequence[Record]) -> list[StoreChange]:
        """Write records in one transaction, all or none; records with the same id are replaced, even within the call.

        InvalidInput for an invalid id or metadata; StoreFull if the limit is reached or the disk is full; ValueError
        for arrays of another dtype or shape.
        """
        for record in records:
            check_record(record, clusters=self._clusters)
        with self._write() as transaction:
            return [self._put(transaction, record) for record in records]

    def delete(self, id: str) -> StoreChange:
        """Delete a picture; replaced_key of the change is its key. NotFound if there is no such id."""
        with self._write(grows=False) as transaction:
            key = self._key(transaction, id)
            self._remove(transaction, key)
            transaction.delete(id.encode(), db=self._databases[b"ids"])
            number = self._next(transaction)
            self.outbox.put(transaction, number, key)
            return StoreChange(key=number, replaced_key=unpack_key(key))

    def get(self, id: str) -> Stored:
        """Return a picture's complete record. NotFound if there is no such id."""
        with self._environment.begin(buffers=True) as transaction:
            key = self._key(transaction, id)
            found = self._stored(transaction, key, thumbnails=True, vectors=self.vectors.reader(transaction))
        if found is None:
            raise self._damaged(f"id {id!r} maps to record {unpack_key(key)}, which is missing")
        if found.record.id != id:
            raise self._damaged(f"id {id!r} maps to record {unpack_key(key)}, which is that of {found.record.id!r}")
        return found

    def by_keys(
        self, keys: Sequence[int], *, thumbnails: bool = False, vectors: bool = True, augmented: bool = False
    ) -> list[Stored | None]:
        """Return the records of keys in that order, from one snapshot; None for a missing key.

        Without `vectors`, descriptor and clusters are empty, and their pages are not read. With `augmented`, the
        descriptor is the augmented vector if there is one.
        """
        with self._environment.begin(buffers=True) as transaction:
            read = self.vectors.reader(transaction, augmented=augmented) if vectors else None
            return [self._stored(transaction, pack_key(key), thumbnails=thumbnails, vectors=read) for key in keys]

    def page(self, query: PageQuery, among: Wanted | None = None) -> Page:
        """List pictures in the order of their ids. among: which of them; None for all."""
        with self._environment.begin(buffers=True) as transaction:
            try:
                return page_of(rows_of(transaction, self._databases, self._sums, query), query, among)
            except ValueError as error:
                raise self._damaged(str(error)) from error

    def count(self) -> int:
        """Return the number of pictures."""
        with self._environment.begin() as transaction:
            return int(transaction.stat(self._databases[b"records"])["entries"])

    @property
    def fingerprint(self) -> str:
        """Of the profile of its vectors."""
        with self._environment.begin() as transaction:
            return bytes(transaction.get(b"fingerprint", b"", db=self._databases[b"meta"])).decode(errors="replace")

    def stats(self) -> StoreStats:
        """Return the current figures of the store."""
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
                keypoints=self.keypoints.count(transaction),
                keypoints_bytes=self.keypoints.nbytes(transaction) + self.patches.nbytes(transaction),
            )

    def close(self) -> None:
        """Close the store and release its folder. May be called twice."""
        with self._writing:
            self._environment.close()
            self._lock.release()

    @contextlib.contextmanager
    def _write(self, *, grows: bool = True) -> Iterator[Any]:
        """Yield a transaction that is committed at the end, or rolled back on errors. StoreFull; StoreUnusable.

        grows: False allows it to use the reserve, for changes that empty a full store.
        """
        with self._writing:
            try:
                # A backup that was killed would keep the pages of its snapshot from being used again.
                self._environment.reader_check()
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
                    f"{self._folder}: a change failed and was rolled back: {error}; check the disk"
                ) from error

    def _put(self, transaction: Any, record: Record) -> StoreChange:
        self._require_size(transaction, len(record.descriptor))
        ids = self._databases[b"ids"]
        former = transaction.get(record.id.encode(), db=ids)
        if former is not None:
            self._remove(transaction, former)
        number = self._next(transaction)
        if former is not None:
            self.outbox.put(transaction, number, former)
        key = pack_key(number)
        values = {b"records": encode(record), b"descriptors": to_bytes(record.descriptor)}
        values |= {b"clusters": to_bytes(record.clusters), b"thumbnails": record.thumbnail}
        for name, value in values.items():
            # Keys increase, so appending fills every page completely.
            transaction.put(key, value, append=True, db=self._databases[name])
        if record.locals is not None:
            self.locals.put(transaction, key, record.locals)
        if record.keypoints is not None:
            self.keypoints.put(transaction, key, record.keypoints)
        if record.patches is not None:
            self.patches.put(transaction, key, record.patches)
        if record.words is not None:
            self.words.put(transaction, key, record.words)
        self._sums.put(transaction, key)
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
        """Require every descriptor to have the size of the first."""
        meta = self._databases[b"meta"]
        stamped = transaction.get(b"descriptor_size", db=meta)
        if stamped is None:
            transaction.put(b"descriptor_size", pack_key(size), db=meta)
        elif unpack_key(stamped) != size:
            raise ProfileMismatch(
                f"got a descriptor of {size} values; those in {self._folder} have {unpack_key(stamped)}"
            )

    def _key(self, transaction: Any, id: str) -> bytes:
        check_id(id)
        key = transaction.get(id.encode(), db=self._databases[b"ids"])
        if key is None:
            raise NotFound(f"no picture with id {id!r} is indexed; ids are case-sensitive")
        return bytes(key)

    def _stored(
        self, transaction: Any, key: bytes, *, thumbnails: bool, vectors: Callable[[bytes], memoryview] | None
    ) -> Stored | None:

        def value(name: bytes, wanted: bool = True) -> bytes | None:
            found = transaction.get(key, db=self._databases[name]) if wanted else b""
            if wanted:
                self._sums.check(transaction, key, name, found)
            return None if found is None else bytes(found)

        data = value(b"records")
        if data is None:
            return None
        clusters = halves(value(b"clusters", vectors is not None) or b"")
        thumbnail = value(b"thumbnails", thumbnails) or b""
        descriptor = halves(vectors(key) if vectors else b"")
        try:
            clusters = clusters.reshape(-1, self._clusters[1])
            record = decode(data, descriptor=descriptor, clusters=clusters, thumbnail=thumbnail)
        except ValueError as error:
            raise self._damaged(f"record {unpack_key(key)}: {error}") from error
        return Stored(key=unpack_key(key), record=record)

    def _used(self, transaction: Any) -> int:
        """Return the bytes of pages with data, without free pages."""
        kinds = ("branch_pages", "leaf_pages", "overflow_pages")
        stats = [transaction.stat(database) for database in self._databases.values()]
        return sum(stat[kind] * stat["psize"] for stat in stats for kind in kinds)

    def _full(self, why: str) -> StoreFull:
        return StoreFull(
            f"{self._folder} is full: {why} (its limit is {self._limit / 2**20:,.0f} MiB); nothing was written. "
            "Delete pictures, raise the store's limit, or free disk space"
        )

    def _damaged(self, what: str) -> StoreUnusable:
        return StoreUnusable(f"{self._folder} is damaged: {what}; restore it from a backup or index the pictures again")
