"""Reads everything that a store in PostgreSQL keeps about each picture, as it was at one moment; see `store.whole`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.postgres.database import Database
from landseer.ensemble.store.postgres.readers import damaged
from landseer.ensemble.store.postgres.schema import FORMAT, PARTS
from landseer.ensemble.store.record import decode, halves
from landseer.ensemble.store.whole import WholeRecord

_FEATURES = PARTS[4:]
_BATCH = 256
"""Pictures that are read at a time."""


class SharedWhole:
    """A store in PostgreSQL as a transaction sees it."""

    def __init__(self, database: Database, cursor: Any) -> None:
        """Call `shared_whole` instead."""
        self._database, self._cursor = database, cursor
        columns = ", ".join(f"{name}_by" for name in _FEATURES)
        found = cursor.execute(f"SELECT fingerprint, sequence, pictures, {columns} FROM landseer_store").fetchone()
        self.fingerprint, self.sequence, self.pictures = found[:3]
        """Of the profile of its vectors; number of changes so far; number of pictures."""
        self._made_by = dict(zip(_FEATURES, found[3:], strict=True))

    @property
    def stamps(self) -> dict[str, str]:
        """What made the features that are there, by name."""
        return {name: by for name, by in self._made_by.items() if by and self._any(name)}

    def records(self) -> Iterator[WholeRecord]:
        """Yield all pictures in the order in which they were written. StoreUnusable for one that is damaged."""
        after = 0
        while True:
            self._cursor.execute(
                f"SELECT key, {', '.join(PARTS)} FROM landseer_pictures WHERE key > %s ORDER BY key LIMIT %s",
                (after, _BATCH),
            )
            found = self._cursor.fetchall()
            for key, *parts in found:
                yield self._whole(key, dict(zip(PARTS, parts, strict=True)))
                after = key
            if not found:
                return

    def _any(self, part: str) -> bool:
        found = self._cursor.execute(f"SELECT 1 FROM landseer_pictures WHERE {part} IS NOT NULL LIMIT 1")
        return found.fetchone() is not None

    def _whole(self, key: int, parts: dict[str, bytes | None]) -> WholeRecord:
        try:
            record = decode(
                parts["record"] or b"",
                descriptor=halves(parts["descriptor"] or b""),
                clusters=halves(parts["clusters"] or b""),
                thumbnail=parts["thumbnail"] or b"",
            )
            clusters = record.clusters.reshape(-1, max(1, len(record.query_vector)))
        except ValueError as error:
            raise damaged(self._database, key, error) from error
        features = {name: value for name in _FEATURES if (value := parts[name]) is not None}
        return WholeRecord(key=key, record=replace(record, clusters=clusters), features=features)


@contextmanager
def shared_whole(address: PostgresAddress, *, insecure: bool = False) -> Iterator[SharedWhole]:
    """Yield a store as it is now, while servers may use it. insecure: see `PostgresStore.open`.

    StoreUnavailable; StoreUnusable if there is no store, or one of another format; ImportError without psycopg.
    """
    database = Database(address, insecure=insecure)
    try:
        with database.snapshot() as cursor:
            if cursor.execute("SELECT to_regclass('landseer_store')::text").fetchone()[0] is None:
                raise StoreUnusable(f"there is no store in {address}; give the address of `landseer serve --store`")
            found = cursor.execute("SELECT format FROM landseer_store").fetchone()[0]
            if found != FORMAT:
                raise StoreUnusable(f"the store {address} has format {found!r}, but this release reads {FORMAT!r}")
            yield SharedWhole(database, cursor)
    finally:
        database.close()
