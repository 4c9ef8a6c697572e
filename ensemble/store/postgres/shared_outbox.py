"""What Milvus has not seen of a store that several orchestrators write.

What a collection of Milvus lacks follows from the last change that it has, as in `store.outbox`: pictures of larger
keys, and removals of larger numbers. So the transaction that writes a picture is all there is to note. One process
sends at a time, and notes how far it came while it keeps the others from sending. If it is killed, its connection ends,
and with it its turn; the next one sends the last part again, which changes nothing, as keys are never used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from landseer.ensemble.store.outbox import Unseen
from landseer.ensemble.store.postgres.database import Database
from landseer.ensemble.store.vectors import stacked


class SharedOutbox:
    """The outbox of a store in PostgreSQL. Used by one thread at a time."""

    noted_every = 1
    patience_s = 1.0
    """Searches tell from then on that another process is still sending."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn: Any = None
        """The cursor of the transaction that keeps others from sending; None outside of `turn`."""

    @contextmanager
    def turn(self, token: str, seen: int) -> Iterator[int | None]:
        """See `record_store.IndexOutbox`. What is noted meanwhile is committed at the end, or forgotten on errors."""
        with self._database.writing() as cursor:
            # If a note is lost, a part is sent again.
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (token,))
            if not cursor.fetchone()[0]:
                yield None
                return
            self._turn = cursor
            try:
                yield self.position(token) or 0
            finally:
                self._turn = None

    def position(self, token: str) -> int | None:
        """Return the last change that the collection with this token has; None if it was never this store's."""
        with self._cursor() as cursor:
            found = cursor.execute("SELECT sequence FROM landseer_outbox WHERE token = %s", (token,)).fetchone()
        return None if found is None else int(found[0])

    def sequence(self) -> int:
        """Return the number of the store's last change."""
        with self._cursor() as cursor:
            return int(cursor.execute("SELECT sequence FROM landseer_store").fetchone()[0])

    def begin(self, token: str) -> None:
        """Note that the collection with this token has seen nothing."""
        self.confirm(token, 0)

    def confirm(self, token: str, sequence: int) -> None:
        """Note that the collection has seen all changes up to `sequence`, and no more."""
        with self._cursor() as cursor:
            cursor.execute(
                "INSERT INTO landseer_outbox VALUES (%s, %s) ON CONFLICT (token) DO UPDATE SET sequence = %s",
                (token, sequence, sequence),
            )

    def unseen(self, after: int, *, augmented: bool, most: int) -> Unseen:
        """Return what changed after change `after`, at most so many pictures. There are no augmented vectors."""
        with self._database.snapshot() as cursor:
            sequence, pictures = cursor.execute("SELECT sequence, pictures FROM landseer_store").fetchone()
            cursor.execute(
                "SELECT key, descriptor FROM landseer_pictures WHERE key > %s ORDER BY key LIMIT %s", (after, most)
            )
            found = cursor.fetchall()
            upto = sequence if len(found) < most else found[-1][0]
            cursor.execute(
                "SELECT key FROM landseer_removals WHERE number > %s AND number <= %s ORDER BY number", (after, upto)
            )
            removed = cursor.fetchall()
        return Unseen(
            keys=np.array([key for key, _ in found], np.int64),
            vectors=stacked([data for _, data in found]),
            removed=np.array([key for (key,) in removed], np.int64),
            upto=upto,
            sequence=sequence,
            pictures=pictures,
        )

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        if self._turn is not None:
            yield self._turn
            return
        with self._database.reading() as cursor:
            yield cursor
