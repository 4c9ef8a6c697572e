"""What an index outside the process has not confirmed: an outbox, kept in the store.

Such an index is a pair with the store: the index has a random token, and the store notes it, with the number of the
last change that the index confirmed. What was added since is found by its keys, as a key is the number of its change.
What was removed is noted beside, in the transaction that removed it, from the first pairing on, by whatever server.
Sending a part twice does no harm, so a confirmation may be noted late, or lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.store.record import pack_key, unpack_key
from landseer.ensemble.store.vectors import Vectors

_NOTE, _REMOVED = b"outbox", b"outbox/"
"""In `meta`: the pair, and by the number of a change the key that it removed."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Which index this store has, and how far it is."""

    token: str
    """Of the index."""
    sequence: int
    """The index has confirmed all changes up to this one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unseen:
    """A part of what an index has not seen, oldest first."""

    keys: npt.NDArray[np.int64]
    """[n] of pictures that were added and are still there, ascending."""
    vectors: npt.NDArray[np.float32]
    """[n, D] of these."""
    removed: npt.NDArray[np.int64]
    """[m] keys that were removed."""
    upto: int
    """The last change of this part."""
    sequence: int
    """The last change of the store."""
    pictures: int
    """In the store after that."""


class Outbox:
    """The outbox of an open store, which one process has. Threads may share it."""

    noted_every = 1024
    """Changes after which the store notes that the index has them: what is not noted is sent again after a restart."""
    patience_s = 0.0

    def __init__(
        self,
        environment: Any,
        databases: dict[bytes, Any],
        vectors: Vectors,
        write: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._environment, self._vectors, self._write = environment, vectors, write
        self._meta, self._records = databases[b"meta"], databases[b"records"]

    def pair(self) -> Pair | None:
        """Return which index the store has; None if it never had one."""
        with self._environment.begin() as transaction:
            return self._pair(transaction)

    def position(self, token: str) -> int | None:
        """Return the last change that the index with this token has confirmed; None if it is not the store's."""
        pair = self.pair()
        return pair.sequence if pair is not None and pair.token == token else None

    def turn(self, token: str, seen: int) -> AbstractContextManager[int]:
        """Give `seen`: nobody else sends. See `record_store.IndexOutbox`."""
        return nullcontext(seen)

    def sequence(self) -> int:
        """Return the number of the store's last change."""
        with self._environment.begin() as transaction:
            return self._sequence(transaction)

    def begin(self, token: str) -> None:
        """Pair the store with an index that has seen nothing. On disk when this returns. StoreFull; StoreUnusable."""
        with self._write() as transaction:
            self._note(transaction, Pair(token=token, sequence=0))

    def confirm(self, token: str, sequence: int) -> None:
        """Note that the index has seen all changes up to `sequence`, unless the store has another one by now.

        On disk when this returns. StoreFull; StoreUnusable.
        """
        with self._write() as transaction:
            before = self._pair(transaction)
            if before is None or before.token != token or before.sequence >= sequence:
                return
            self._note(transaction, Pair(token=token, sequence=sequence))
            for number, _ in self._removals(transaction, before.sequence, sequence):
                transaction.delete(_REMOVED + pack_key(number), db=self._meta)

    def put(self, transaction: Any, number: int, key: bytes) -> None:
        """Note in the transaction of change `number` that it removed a key; nothing if there is no index to tell."""
        if transaction.get(_NOTE, db=self._meta) is not None:
            transaction.put(_REMOVED + pack_key(number), key, db=self._meta)

    def unseen(self, after: int, *, augmented: bool, most: int) -> Unseen:
        """Return what changed after change `after`, at most so many pictures; augmented: as of `Vectors.scan`."""
        with self._environment.begin() as transaction:
            sequence = self._sequence(transaction)
            pictures = int(transaction.stat(self._records)["entries"])
        scan = self._vectors.scan(after=after, batch=most, augmented=augmented)
        keys, vectors = next(scan, (np.empty(0, np.int64), np.empty((0, 0), np.float16)))
        upto = sequence if len(keys) < most else min(sequence, int(keys[-1]))
        there = keys <= upto
        with self._environment.begin() as transaction:
            removals = self._removals(transaction, after, upto)
        return Unseen(
            keys=keys[there],
            vectors=vectors[there].astype(np.float32),
            removed=np.array([key for _, key in removals], np.int64),
            upto=upto,
            sequence=sequence,
            pictures=pictures,
        )

    def _sequence(self, transaction: Any) -> int:
        return unpack_key(transaction.get(b"sequence", pack_key(0), db=self._meta))

    def _pair(self, transaction: Any) -> Pair | None:
        text = transaction.get(_NOTE, db=self._meta)
        return None if text is None else Pair(**json.loads(bytes(text)))

    def _note(self, transaction: Any, pair: Pair) -> None:
        transaction.put(_NOTE, json.dumps(asdict(pair)).encode(), db=self._meta)

    def _removals(self, transaction: Any, after: int, upto: int) -> list[tuple[int, int]]:
        """Return the changes after one that removed a key, up to another, and the keys."""
        cursor, found = transaction.cursor(self._meta), []
        there = cursor.set_range(_REMOVED + pack_key(after + 1))
        while there and bytes(cursor.key()).startswith(_REMOVED):
            number = unpack_key(bytes(cursor.key())[len(_REMOVED) :])
            if number > upto:
                break
            found.append((number, unpack_key(cursor.value())))
            there = cursor.next()
        return found
