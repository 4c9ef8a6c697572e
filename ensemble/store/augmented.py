"""The augmented vectors of a store, beside the raw ones, and the job that writes them.

Two databases, the slots, have by key one augmented vector each, float16 like the raw. The notes in `meta` say which
slot is in use and how it came about, and which one is being filled. A job fills the slot that is not in use and the
last transaction changes over, so that a job killed at any moment leaves the former augmentation as it was, and the next
run goes on after the last vector that was committed.

An augmentation is of one moment of the store, the sequence number of its last change: neighbours are those of then. A
picture that comes later has no augmented vector until the job is run again. One that goes takes its own along, but
those of its neighbours still hold its share. A job that finds the store changed begins anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.folder import SLOTS
from landseer.ensemble.store.record import Augmentation, pack_key, to_bytes, unpack_key

_CURRENT, _JOB = b"augmentation", b"augmenting"


@dataclass(frozen=True, kw_only=True)
class AugmentationJob:
    """An augmentation being written."""

    augmentation: Augmentation
    slot: bytes
    done: int
    """How many vectors are there."""
    after: int
    """The key of the last of them, 0 for none: the rest have greater keys."""


class Augmented:
    """The slots of an open store. Threads may share it; jobs are for one at a time."""

    def __init__(
        self, environment: Any, databases: dict[bytes, Any], write: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._environment, self._databases, self._write = environment, databases, write

    def read(self, transaction: Any) -> tuple[Augmentation, Any] | None:
        """Return the augmentation in use and its database; None if there is none."""
        found = self._note(transaction, _CURRENT)
        return None if found is None else (found[0], self._databases[found[1]])

    def begin(self, method: str, *, network: str = "") -> AugmentationJob:
        """Take up the job of a method where it stopped, or begin it if it never ran on the store as it is now."""
        with self._write() as transaction:
            wanted = self._now(transaction, method, network)
            current, job = (self._note(transaction, name) for name in (_CURRENT, _JOB))
            if current is not None and current[0] == wanted:
                return self._job(transaction, *current)
            if job is None or job[0] != wanted:
                job = wanted, next(slot for slot in SLOTS if current is None or slot != current[1])
                self._clear(transaction, job[1])
                self._set(transaction, _JOB, *job)
            return self._job(transaction, *job)

    def put(self, job: AugmentationJob, keys: npt.NDArray[Any], vectors: npt.NDArray[Any]) -> None:
        """Write the next vectors of a job, float16 [n, D], under keys [n], ascending. StoreFull; StoreUnusable."""
        with self._write() as transaction:
            self._require(transaction, job)
            for key, vector in zip(keys.tolist(), vectors, strict=True):
                transaction.put(pack_key(key), to_bytes(vector), append=True, db=self._databases[job.slot])

    def finish(self, job: AugmentationJob) -> Augmentation:
        """Put a job's vectors in the place of the former ones. StoreUnusable if some are missing; harmless twice."""
        with self._write() as transaction:
            if self._note(transaction, _CURRENT) == (job.augmentation, job.slot):
                return job.augmentation
            self._require(transaction, job)
            written = self._count(transaction, job.slot)
            if written != job.augmentation.pictures:
                raise StoreUnusable(f"{written} of {job.augmentation.pictures} vectors are augmented; run it again")
            self._clear(transaction, *(slot for slot in SLOTS if slot != job.slot))
            self._set(transaction, _CURRENT, job.augmentation, job.slot)
            transaction.delete(_JOB, db=self._databases[b"meta"])
        return job.augmentation

    def drop(self) -> None:
        """Take out all augmented vectors and what a job had written of others; the raw ones stay."""
        with self._write() as transaction:
            self._clear(transaction, *SLOTS)
            for name in (_CURRENT, _JOB):
                transaction.delete(name, db=self._databases[b"meta"])

    def _now(self, transaction: Any, method: str, network: str) -> Augmentation:
        sequence = unpack_key(transaction.get(b"sequence", pack_key(0), db=self._databases[b"meta"]))
        pictures = self._count(transaction, b"records")
        return Augmentation(method=method, network=network, sequence=sequence, pictures=pictures)

    def _job(self, transaction: Any, augmentation: Augmentation, slot: bytes) -> AugmentationJob:
        cursor = transaction.cursor(self._databases[slot])
        after = unpack_key(cursor.key()) if cursor.last() else 0
        return AugmentationJob(augmentation=augmentation, slot=slot, done=self._count(transaction, slot), after=after)

    def _require(self, transaction: Any, job: AugmentationJob) -> None:
        now = self._now(transaction, job.augmentation.method, job.augmentation.network)
        if now != job.augmentation or self._note(transaction, _JOB) != (job.augmentation, job.slot):
            raise StoreUnusable("the store was changed while its vectors were augmented; run it again")

    def _count(self, transaction: Any, name: bytes) -> int:
        return int(transaction.stat(self._databases[name])["entries"])

    def _clear(self, transaction: Any, *slots: bytes) -> None:
        for slot in slots:
            transaction.drop(self._databases[slot], delete=False)

    def _note(self, transaction: Any, name: bytes) -> tuple[Augmentation, bytes] | None:
        text = transaction.get(name, db=self._databases[b"meta"])
        if text is None:
            return None
        fields = json.loads(bytes(text))
        return Augmentation(**fields["augmentation"]), fields["slot"].encode()

    def _set(self, transaction: Any, name: bytes, augmentation: Augmentation, slot: bytes) -> None:
        fields = {"augmentation": dataclasses.asdict(augmentation), "slot": slot.decode()}
        transaction.put(name, json.dumps(fields).encode(), db=self._databases[b"meta"])
