"""The store of several orchestrators: every indexed picture, in a PostgreSQL database, changed only by transactions.

Its parts are those of the LMDB store, in the same bytes, and its keys the same: numbers of changes, which increase, are
never reused, and serve as ids in every index. `schema` says in which tables. An acknowledged write is as safe as the
database makes it: on its disk, unless somebody has turned off `fsync` or `synchronous_commit` there.

What other orchestrators write is read by `changes_after`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from landseer.ensemble.errors import NotFound, ProfileMismatch, StoreFull
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.keypoints.compact import CompactKeypoints, pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.patches import Patches, pack_patches, unpack_patches
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.listing import Page, PageQuery, Row, Wanted, page_of
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.postgres.database import Database
from landseer.ensemble.store.postgres.readers import (
    NUL,
    SharedFeatures,
    SharedMetadata,
    SharedVectors,
    damaged,
    parts_of,
)
from landseer.ensemble.store.postgres.schema import PARTS, prepare
from landseer.ensemble.store.postgres.shared_outbox import SharedOutbox
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
    metadata_of,
    to_bytes,
)

_LISTED = 1024
"""Pictures of a list that are read at a time."""
_SIZES = ", ".join(f"coalesce(octet_length({part}), 0)" for part in PARTS)
_READ = ("descriptor", "clusters", "thumbnail", "keypoints")
"""Columns that may be read beside the record."""
_PACKS: dict[str, Callable[[Any], bytes]] = {
    "locals": pack_features,
    "keypoints": pack_keypoints,
    "patches": pack_patches,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreChanges:
    """What changed after a change, oldest first, or the first part of it."""

    added: tuple[Stored, ...]
    """Pictures that are still there, without clusters and thumbnails; of features with keypoints only."""
    removed: tuple[int, ...]
    """Keys that were removed; some of them may have been added since `after`, too."""
    upto: int
    """The last change of this part."""
    pictures: int
    """In the store after all changes."""


class PostgresStore:
    """An open store in PostgreSQL. Threads may share it. Close it after they have finished."""

    def __init__(
        self, database: Database, made_by: Mapping[str, str], *, clusters: tuple[int, int], limit: int
    ) -> None:
        """Call `open` instead."""
        self._database, self._features = database, frozenset(made_by)
        self._clusters, self._limit = clusters, limit
        self.vectors = SharedVectors(database, clusters=clusters)
        self.metadata = SharedMetadata(database)
        self.locals: SharedFeatures[LocalFeatures] = SharedFeatures(database, "locals", unpack_features)
        self.keypoints: SharedFeatures[CompactKeypoints] = SharedFeatures(database, "keypoints", unpack_keypoints)
        self.patches: SharedFeatures[Patches] = SharedFeatures(database, "patches", unpack_patches)
        self.outbox = SharedOutbox(database)

    @classmethod
    def open(
        cls,
        address: PostgresAddress,
        *,
        fingerprint: str,
        made_by: Mapping[str, str],
        limit_bytes: int = 16 * 2**30,
        clusters_shape: tuple[int, int] = (Sizes.clusters, Sizes.reduced),
        insecure: bool = False,
    ) -> PostgresStore:
        """Open the store in a database, or create it there; limit_bytes may change between runs.

        fingerprint: of the profile of its vectors. made_by: what makes the features that are stored: SHA-256 of the
        models of `locals` and `patches`, fingerprint of the codebook of `keypoints`. clusters_shape: K, most clusters
        of a picture, and P, their size. insecure: whether plain text may go to another machine.
        StoreUnavailable if the database does not answer; ProfileMismatch; StoreUnusable; ImportError without psycopg.
        """
        database = Database(address, insecure=insecure)
        try:
            with database.writing() as cursor:
                prepare(cursor, address, fingerprint, made_by)
        except BaseException:
            database.close()
            raise
        return cls(database, made_by, clusters=clusters_shape, limit=limit_bytes)

    def put_many(self, records: Sequence[Record]) -> list[StoreChange]:
        """Write records in one transaction, all or none; records with the same id are replaced, even within the call.

        InvalidInput for an invalid id or metadata; StoreFull; ValueError for arrays of another dtype or shape.
        StoreUnavailable: nothing was written. Unfinished: perhaps.
        """
        for record in records:
            check_record(record, clusters=self._clusters)
        # Packed before other writers have to wait.
        rows = {record.id: self._packed(record) for record in records}
        with self._database.writing() as cursor:
            first = self._locked(cursor, records) + 1
            cursor.execute("SELECT id, key FROM landseer_pictures WHERE id = ANY(%s)", (list(rows),))
            stored = dict(cursor.fetchall())
            keys, changes = dict(stored), []
            for number, record in enumerate(records, first):
                changes.append(StoreChange(key=number, replaced_key=keys.get(record.id)))
                keys[record.id] = number
            gone = self._remove(cursor, list(stored.values()))
            cursor.executemany(
                f"INSERT INTO landseer_pictures (key, id, {', '.join(PARTS)}) VALUES (%s, %s{', %b' * len(PARTS)})",
                [(keys[id], id, *row) for id, row in rows.items()],
            )
            self._note(cursor, changes, _Sums.of(rows.values()) - gone)
        return changes

    def delete(self, id: str) -> StoreChange:
        """Delete a picture; replaced_key of the change is its key. NotFound; StoreUnavailable; Unfinished."""
        check_id(id)
        with self._database.writing() as cursor:
            number = self._locked(cursor, ()) + 1
            found = cursor.execute("SELECT key FROM landseer_pictures WHERE id = %s", (id,)).fetchone()
            if found is None:
                raise _not_found(id)
            change = StoreChange(key=number, replaced_key=found[0])
            gone = self._remove(cursor, [found[0]])
            self._note(cursor, [change], _Sums() - gone)
        return change

    def get(self, id: str) -> Stored:
        """Return a picture's record, without features. NotFound if there is no such id."""
        check_id(id)
        with self._database.reading() as cursor:
            cursor.execute(f"SELECT {_columns(*_READ[:3])} FROM landseer_pictures WHERE id = %s", (id,))
            found = cursor.fetchone()
        if found is None:
            raise _not_found(id)
        return self._stored(found)

    def by_keys(
        self, keys: Sequence[int], *, thumbnails: bool = False, vectors: bool = True, augmented: bool = False
    ) -> list[Stored | None]:
        """Return the records of keys in that order, from one snapshot; None for a missing key.

        Without `vectors`, descriptor and clusters are empty, and not read. There are no augmented vectors.
        """
        columns = _columns(*(_READ[:2] if vectors else ()), *(_READ[2:3] if thumbnails else ()))
        wanted = [int(key) for key in keys]
        with self._database.reading() as cursor:
            cursor.execute(f"SELECT {columns} FROM landseer_pictures WHERE key = ANY(%s)", (wanted,))
            found = {row[0]: self._stored(row) for row in cursor.fetchall()}
        return [found.get(key) for key in wanted]

    def page(self, query: PageQuery, among: Wanted | None = None) -> Page:
        """List pictures in the order of their ids. among: which of them; None for all."""
        with self._database.snapshot() as cursor:
            return page_of(self._rows(cursor, query), query, among)

    def count(self) -> int:
        """Return the number of pictures."""
        return self.stats().pictures

    def stats(self) -> StoreStats:
        """Return the current figures of the store. Bytes are those of its records, without PostgreSQL's own."""
        names = ("pictures", "sequence", "last_change", "locals", "locals_bytes", "keypoints", "keypoints_bytes")
        with self._database.reading() as cursor:
            bytes_, *values = cursor.execute(f"SELECT bytes, {', '.join(names)} FROM landseer_store").fetchone()
        figures = dict(zip(names, values, strict=True))
        return StoreStats(used_bytes=bytes_, file_bytes=bytes_, limit_bytes=self._limit, **figures)

    def changes_after(self, after: int, *, most: int = 256) -> StoreChanges | None:
        """Return what changed after change `after`, at most so many pictures; None if nothing did."""
        if self.metadata.sequence() <= after:
            return None
        with self._database.snapshot() as cursor:
            sequence, pictures = cursor.execute("SELECT sequence, pictures FROM landseer_store").fetchone()
            cursor.execute(
                f"SELECT {_columns('descriptor', 'keypoints')} FROM landseer_pictures WHERE key > %s "
                "ORDER BY key LIMIT %s",
                (after, most),
            )
            found = cursor.fetchall()
            upto = sequence if len(found) < most else found[-1][0]
            cursor.execute(
                "SELECT key FROM landseer_removals WHERE number > %s AND number <= %s ORDER BY number", (after, upto)
            )
            removed = tuple(key for (key,) in cursor.fetchall())
        return StoreChanges(
            added=tuple(self._stored(row) for row in found), removed=removed, upto=upto, pictures=pictures
        )

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._database.close()

    def _packed(self, record: Record) -> tuple[bytes | None, ...]:
        """Return the columns of `PARTS`. ValueError for features that the store was not opened for."""
        features = {name: getattr(record, name) for name in _PACKS}
        if strange := [name for name, some in features.items() if some is not None and name not in self._features]:
            raise ValueError(f"got {strange[0]} of {record.id!r}, but the store was opened without what makes them")
        if record.words is not None:
            raise ValueError(f"got words of {record.id!r}; a store in a database has those of keypoints only")
        packed = {name: None if some is None else _PACKS[name](some) for name, some in features.items()}
        return (
            encode(record),
            to_bytes(record.descriptor),
            to_bytes(record.clusters),
            record.thumbnail,
            packed["locals"],
            packed["keypoints"],
            packed["patches"],
        )

    def _locked(self, cursor: Any, records: Sequence[Record]) -> int:
        """Let no other write begin until this one ends; return the number of the last change.

        StoreFull if the limit is reached, and records are to be added; ProfileMismatch for descriptors of another size.
        """
        cursor.execute("SELECT sequence, bytes, descriptor_size FROM landseer_store FOR UPDATE")
        sequence, used, size = cursor.fetchone()
        if records and used >= self._limit:
            raise StoreFull(
                f"the store {self._database.address} is full: its limit of {self._limit / 2**20:,.0f} MiB is reached; "
                "nothing was written. Delete pictures, or raise --store-limit"
            )
        for record in records:
            size = size or len(record.descriptor)
            if len(record.descriptor) != size:
                raise ProfileMismatch(
                    f"got a descriptor of {len(record.descriptor)} values; those in the store "
                    f"{self._database.address} have {size}"
                )
        cursor.execute("UPDATE landseer_store SET descriptor_size = %s WHERE descriptor_size IS NULL", (size,))
        return int(sequence)

    def _remove(self, cursor: Any, keys: list[int]) -> _Sums:
        cursor.execute(f"DELETE FROM landseer_pictures WHERE key = ANY(%s) RETURNING {_SIZES}", (keys,))
        return _Sums.of_sizes(cursor.fetchall())

    def _note(self, cursor: Any, changes: Sequence[StoreChange], grown: _Sums) -> None:
        """Note the numbers of changes, what they removed, and by how much the sums grow."""
        removals = [(change.key, change.replaced_key) for change in changes if change.replaced_key is not None]
        cursor.executemany("INSERT INTO landseer_removals VALUES (%s, %s)", removals)
        cursor.execute(
            "UPDATE landseer_store SET sequence = sequence + %s, last_change = %s, pictures = pictures + %s, "
            "bytes = bytes + %s, locals = locals + %s, locals_bytes = locals_bytes + %s, keypoints = keypoints + %s, "
            "keypoints_bytes = keypoints_bytes + %s",
            (
                len(changes),
                time.time(),
                grown.pictures,
                grown.total_bytes,
                grown.locals,
                grown.locals_bytes,
                grown.keypoints,
                grown.keypoints_bytes,
            ),
        )

    def _rows(self, cursor: Any, query: PageQuery) -> Iterator[Row]:
        """Yield the pictures that a query may show, in the order of their ids."""
        # An id behind a text with NUL is behind what is before that.
        after = query.after.partition(NUL)[0]
        while NUL not in query.prefix:
            cursor.execute(
                f"SELECT id, key, {'record' if query.metadata else 'NULL'} FROM landseer_pictures "
                "WHERE id > %s AND id >= %s AND starts_with(id, %s) ORDER BY id LIMIT %s",
                (after, query.prefix, query.prefix, min(query.size + 1, _LISTED)),
            )
            found = cursor.fetchall()
            for id, key, record in found:
                yield id, key, partial(self._metadata, cursor, key, record)
            if not found:
                return
            after = found[-1][0]

    def _metadata(self, cursor: Any, key: int, record: bytes | None) -> dict[str, str]:
        try:
            return metadata_of(record or parts_of(cursor, "record", [key])[0] or b"")
        except ValueError as error:
            raise damaged(self._database, key, error) from error

    def _stored(self, row: Sequence[Any]) -> Stored:
        """Return a picture. row: its key and record, and what was read of `_READ`, or None."""
        key, record, descriptor, clusters, thumbnail, keypoints = row
        try:
            found = decode(
                record,
                descriptor=halves(descriptor or b""),
                clusters=halves(clusters or b"").reshape(-1, self._clusters[1]),
                thumbnail=thumbnail or b"",
                keypoints=None if keypoints is None else unpack_keypoints(keypoints),
            )
        except ValueError as error:
            raise damaged(self._database, key, error) from error
        return Stored(key=key, record=found)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Sums over some pictures."""

    pictures: int = 0
    total_bytes: int = 0
    locals: int = 0
    locals_bytes: int = 0
    keypoints: int = 0
    keypoints_bytes: int = 0
    """With patches."""

    @classmethod
    def of(cls, rows: Iterable[Sequence[bytes | None]]) -> _Sums:
        """Return the sums of rows of `PARTS`."""
        return cls.of_sizes([[len(part or b"") for part in row] for row in rows])

    @classmethod
    def of_sizes(cls, rows: Sequence[Sequence[int]]) -> _Sums:
        """Return the sums of rows of the sizes of `PARTS`."""
        locals, keypoints, patches = ([row[PARTS.index(name)] for row in rows] for name in _PACKS)
        return cls(
            pictures=len(rows),
            total_bytes=sum(map(sum, rows)),
            locals=sum(size > 0 for size in locals),
            locals_bytes=sum(locals),
            keypoints=sum(size > 0 for size in keypoints),
            keypoints_bytes=sum(keypoints) + sum(patches),
        )

    def __sub__(self, other: _Sums) -> _Sums:
        names = self.__dataclass_fields__
        return _Sums(**{name: getattr(self, name) - getattr(other, name) for name in names})


def _columns(*wanted: str) -> str:
    """Return the columns for `PostgresStore._stored`, as SQL."""
    return ", ".join(("key", "record", *(name if name in wanted else "NULL" for name in _READ)))


def _not_found(id: str) -> NotFound:
    return NotFound(f"no picture with id {id!r} is indexed; ids are case-sensitive")
