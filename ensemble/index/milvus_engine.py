"""Milvus as an index engine: global vectors live there, everything else stays in the store.

The store is the truth, and Milvus follows it: what changes is on disk in the store first, and goes to Milvus from the
store's outbox (`store.outbox`). So a Milvus that is away, or was killed, gets later what it has not seen, at the start,
before a search, or while nothing else happens; sending a part twice does no harm, as keys are never used again. Milvus
only finds candidates. They are scored again from the store, which drops those that it has no more.

What a search may lack is told (`lacks`): changes that Milvus has not seen yet, or vectors that it has and does not
search. After a node of a cluster is lost, searches fail for a while, and may then succeed among half of the vectors, so
their number is compared with the store's after each failure, and every `LOOK_S` seconds. If some are missing for long,
all are sent again: a node comes back within seconds, but a store that was restored may have what Milvus has deleted.

Several servers may have one store in a database, and one collection. Then one of them sends at a time, and the others
learn from the outbox how far it is. Whoever has its turn knows what Milvus has, so only then numbers are compared.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from landseer.ensemble.errors import IndexUnavailable, LandseerError, StoreUnusable
from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.living_main import Stored, living_vectors
from landseer.ensemble.index.milvus_collection import MilvusCollection
from landseer.ensemble.index.milvus_filter import search_among
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.store.record_store import IndexOutbox

log = logging.getLogger(__name__)
SENT = 1024
"""Most pictures that are sent at a time; searches wait meanwhile."""
AGAIN_S, LOOK_S = 1.0, 5.0
"""Seconds from a failure to the next try, and from one look at the number of vectors to the next."""
SEND_AGAIN_S = 60.0
"""Seconds for which vectors are missing before all are sent again, once for each connection."""


class MilvusEngine:
    """The vectors of a store, in a collection of Milvus. Used by one thread at a time."""

    name: ClassVar[str] = "milvus"
    exact: ClassVar[bool] = False

    def __init__(
        self,
        collection: MilvusCollection,
        outbox: IndexOutbox,
        *,
        made_of: str,
        augmented: bool,
        stored: Stored,
        pictures: Callable[[], int],
        behind: Callable[[int], None],
    ) -> None:
        """made_of: as of `MilvusCollection.open`. augmented: whether augmented vectors are searched.

        stored: reads vectors from the store. pictures: returns how many it has. behind: called with the number of the
        store's changes that Milvus lacks.
        """
        self._collection, self._outbox = collection, outbox
        self._made_of, self._augmented = made_of, augmented
        self._stored, self._pictures, self._behind = stored, pictures, behind
        self._token = ""
        """Of the collection that is open; empty if none is."""
        self._fault: LandseerError | None = None
        self._again_at = self._look_at = 0.0
        self._seen = self._noted = 0
        """The last change that Milvus has, and the last one of which the store notes that."""
        self._all_seen = False
        self._changed_at = -math.inf
        """When there was something new to send."""
        self._waits = False
        """Whether another process had its turn when there was something to send."""
        self._missing_since: float | None = None
        self._sent_again = False
        self._size = self._missing = 0
        """Vectors that Milvus must have, and how many of them a search did not look among."""

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return self._collection.dimension

    @property
    def size(self) -> int:
        """Number of pictures in the store, all of which should be found."""
        return self._pictures()

    @property
    def lacks(self) -> str:
        """What searches may miss, and why; empty if nothing."""
        if not self._all_seen and not self._patient:
            return "INDEX_PARTIAL: Milvus has not got the latest changes yet; they are being sent"
        if self._missing:
            there = f"{self._size - self._missing:,} of {self._size:,} pictures"
            return f"INDEX_PARTIAL: Milvus searches {there}; it may have lost a node"
        return ""

    @property
    def seen(self) -> int:
        """The last change that searches see; 0 if they see a part, or nothing."""
        return 0 if self._missing or self._fault is not None else self._seen

    @property
    def waits(self) -> bool:
        """Whether another process is sending what Milvus lacks."""
        return self._waits and not self._all_seen

    @property
    def refusal(self) -> StoreUnusable | None:
        """Why this collection cannot serve the store, if that is so; trying again does not help."""
        return self._fault if isinstance(self._fault, StoreUnusable) else None

    def reserve(self, count: int) -> None:
        """Do nothing: Milvus makes room by itself."""

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Send Milvus what is new in the store, which has these vectors by now. If that fails, it is sent later."""
        self._change()
        for _ in range(0, len(keys), SENT):
            self.tend()

    def remove(self, keys: Keys) -> None:
        """Send Milvus what is new in the store, which has removed these keys. If that fails, it is sent later."""
        self._change()
        self.tend()

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates for the nearest to each of queries [Q, D], best first.

        Rows that have fewer than others end in keys of -1. IndexUnavailable if Milvus does not answer; StoreUnusable if
        its collection is another's by now.
        """
        self.tend()
        if self._fault is not None:
            raise type(self._fault)(str(self._fault))
        try:
            if selection is None:
                return self._collection.search(queries, k)
            return search_among(self._collection, queries, k, selection, size=self._size)
        except IndexUnavailable as error:
            self._lose(error)
            raise

    def vectors(self, keys: Keys) -> Vectors:
        """Return the stored vectors [n, D] under keys [n]; NaN for what the store has no more."""
        return living_vectors(self._stored, keys, self.dimension)

    def tend(self) -> bool:
        """Send a part of what Milvus has not seen, or look whether it searches all; return whether more is to be sent.

        Errors are kept for the next search.
        """
        if time.monotonic() < self._again_at:
            return False
        try:
            if not self._token:
                self._reach()
            if not self._all_seen or time.monotonic() >= self._look_at:
                self._keep_up()
        except LandseerError as error:
            self._lose(error)
            return False
        if self._fault is not None:
            self._fault = None
            log.info("Milvus answers again")
        return not self._all_seen and not self._waits

    def close(self) -> None:
        """Note what Milvus has, and disconnect."""
        if self._token and self._seen > self._noted:
            with suppress(LandseerError):
                self._outbox.confirm(self._token, self._seen)
        self._collection.close()

    def _reach(self) -> None:
        """Open the collection, and find out which changes it has."""
        token = self._collection.open(self._made_of)
        with self._outbox.turn(token, 0) as there:
            if self._outbox.position(token) is None:
                self._pair(token, ours=there is not None)
            elif there is not None and len(self._collection.keys_after(self._outbox.sequence())):
                self._go_back(token)
            self._seen = self._noted = self._outbox.position(token) or 0
        self._token, self._all_seen, self._look_at = token, False, 0.0
        self._missing_since, self._sent_again = None, False

    def _pair(self, token: str, *, ours: bool) -> None:
        """Note that an empty collection is the store's. ours: whether nobody else may fill it meanwhile."""
        if not ours:
            raise IndexUnavailable("another server prepares the collection of Milvus")
        if there := self._collection.count():
            raise StoreUnusable(
                f"the collection of Milvus has {there:,} vectors of another store, or of this one before it was "
                "restored; name another collection in --engine, or drop this one: it is filled from the store again"
            )
        self._outbox.begin(token)

    def _go_back(self, token: str) -> None:
        """Have Milvus forget changes that the store never made: it was put back to an older state."""
        log.warning("the store is older than what Milvus has, as after a restore: all is sent to it again")
        self._outbox.begin(token)
        while len(later := self._collection.keys_after(self._outbox.sequence())):
            self._collection.delete(later)

    @property
    def _patient(self) -> bool:
        """Whether another process may yet be sending what is new, before it is worth a word."""
        return time.monotonic() - self._changed_at < self._outbox.patience_s

    def _change(self) -> None:
        if self._all_seen:
            self._changed_at = time.monotonic()
        self._all_seen = False

    def _keep_up(self) -> None:
        """Send a part, and look whether all is searched, unless another process has its turn."""
        with self._outbox.turn(self._token, self._seen) as there:
            self._waits = there is None
            if there is None:
                return
            if there != self._seen:
                self._seen = self._noted = there
                self._collection.expect_changes()
                self._change()
            if not self._all_seen:
                self._send()
            if self._all_seen and time.monotonic() >= self._look_at:
                self._look()

    def _send(self) -> None:
        part = self._outbox.unseen(self._seen, augmented=self._augmented, most=SENT)
        self._behind(part.sequence - self._seen)
        self._collection.upsert(part.keys, part.vectors)
        self._collection.delete(part.removed)
        self._seen, self._size = part.upto, part.pictures
        self._all_seen = part.upto == part.sequence
        self._behind(part.sequence - part.upto)
        if self._seen >= self._noted + self._outbox.noted_every:
            # If that fails, as on a full disk, Milvus has the changes all the same: a restart sends them again.
            with suppress(LandseerError):
                self._outbox.confirm(self._token, self._seen)
            self._noted = self._seen

    def _look(self) -> None:
        """Compare the number of vectors that are searched with the store's."""
        there = self._collection.count()
        now, self._missing = time.monotonic(), max(0, self._size - there)
        self._look_at = now + LOOK_S
        if not self._missing:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
            log.warning("Milvus searches %s of %s vectors: it may have lost a node", f"{there:,}", f"{self._size:,}")
        elif now - self._missing_since >= SEND_AGAIN_S and not self._sent_again:
            log.warning("Milvus still searches %s of %s vectors: all are sent again", f"{there:,}", f"{self._size:,}")
            # Noted, so that a restart goes on with it; as with `confirm` a full disk must not end searches.
            with suppress(LandseerError):
                self._outbox.begin(self._token)
            self._seen = self._noted = 0
            self._all_seen, self._sent_again = False, True

    def _lose(self, error: LandseerError) -> None:
        """Keep an error for searches, and connect again after a while."""
        if str(error) != str(self._fault):
            log.warning("%s; changes stay in the store, and are sent when it answers", error)
        self._fault, self._token, self._again_at = error, "", time.monotonic() + AGAIN_S
        self._waits = False
        self._collection.close()
