"""The augmented vectors of a store, beside the raw ones, and the job that writes them.

Two databases, called slots, map keys to augmented vectors, float16 like the raw ones. Notes in `meta` record which slot
is in use and how it was made, and which one is being filled. A job fills the unused slot, and its last transaction
switches slots. So a job killed at any time leaves the previous augmentation intact, and the next run resumes after the
last committed vector.

An augmentation belongs to one state of the store, identified by the sequence number of its last change. Pictures added
later have no augmented vector until the job runs again. Deleting a picture deletes its vector, but the vectors of its
neighbours still contain it. If the store has changed, an interrupted job starts over.
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
    """Number of vectors written."""
    after: int
    """The key of the last one, or 0; the others have greater keys."""


class Augmented:
    """The slots of an open store. Threads may share it; only one job may run at a time."""

    def __init__(
        self, environment: Any, databases: dict[bytes, Any], write: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._environment, self._databases, self._write = environment, databases, write

    def read(self, transaction: Any) -> tuple[Augmentation, Any] | None:
        """Return the augmentation in use and its database, or None."""
        found = self._note(transaction, _CURRENT)
        return None if found is None else (found[0], self._databases[found[1]])

    def begin(self, method: str, *, network: str = "") -> AugmentationJob:
        """Resume the job of a method, or start it if it has not run on the current state of the store."""
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
        """Switch to a job's vectors. StoreUnusable if some are missing. Calling it twice is safe."""
        with self._write() as transaction:
            if self._note(transaction, _CURRENT) == (job.augmentation, job.slot):
                return job.augmentation
            self._require(transaction, job)
            written = self._count(transaction, job.slot)
            if written != job.augmentation.pictures:
                raise StoreUnusable(
                    f"only {written} of {job.augmentation.pictures} vectors are augmented; run the job again"
                )
            self._clear(transaction, *(slot for slot in SLOTS if slot != job.slot))
            self._set(transaction, _CURRENT, job.augmentation, job.slot)
            transaction.delete(_JOB, db=self._databases[b"meta"])
        return job.augmentation

    def drop(self) -> None:
        """Delete all augmented vectors, including those of an unfinished job; the raw ones stay."""
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
            raise StoreUnusable("the store changed while its vectors were augmented; run the job again")

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
