"""The single writer of a collection: changes are applied one after the other, to the store, then to the index."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import IndexLoading, LandseerError, Unfinished
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.store.record import Record, StoreChange
from landseer.ensemble.telemetry.metrics import only_metrics
from landseer.ensemble.workers import Workers

log = logging.getLogger(__name__)
GROUP = 256
"""Most pictures per transaction. Waiting pictures share a transaction, and so one fsync."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    records: Sequence[Record] = ()
    delete: str = ""
    done: asyncio.Future[list[StoreChange]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, result: list[StoreChange] | Exception) -> None:
        """Set the result, unless the caller was cancelled."""
        if self.done.done():
            return
        if isinstance(result, Exception):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


class Writer:
    """Serialises changes. A change cancelled before its turn is dropped; one that has started completes."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._workers = Workers("writes", threads=1)
        self._waiting: deque[_Job] = deque()
        self._more = asyncio.Event()
        self._closing = False
        self._stale = False
        self._task = asyncio.create_task(self._run(), name="landseer-writer")

    async def put(self, records: Sequence[Record]) -> list[StoreChange]:
        """Store and index pictures, all or none. Returns one change per picture. StoreFull writes nothing.

        On return they are on disk and can be found. IndexLoading: nothing was done. Unfinished: they are on disk, but
        cannot be found yet. Retrying is safe.
        """
        return await self._submit(_Job(records=records)) if records else []

    async def delete(self, id: str) -> StoreChange:
        """Delete a picture. NotFound. IndexLoading: nothing was done. Unfinished: it is deleted, but still found."""
        return (await self._submit(_Job(delete=id)))[0]

    async def close(self) -> None:
        """Finish waiting changes and accept no more."""
        self._closing = True
        self._more.set()
        await self._task
        self._workers.close()

    async def _submit(self, job: _Job) -> list[StoreChange]:
        if self._closing:
            raise IndexLoading("the server is shutting down; try again")
        self._waiting.append(job)
        self._more.set()
        return await job.done

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if group := self._next_group():
                await self._settle(group)
            elif not self._closing:
                self._more.clear()
                await self._more.wait()

    def _next_group(self) -> list[_Job]:
        """Take the leading puts, or one delete. Cancelled changes are skipped."""
        group: list[_Job] = []
        while self._waiting and sum(len(job.records) for job in group) < GROUP:
            if group and (self._waiting[0].delete or group[0].delete):
                break
            job = self._waiting.popleft()
            if not job.done.cancelled():
                group.append(job)
        return group

    async def _settle(self, group: list[_Job]) -> None:
        """Apply the group's changes; if the store rejects them together, apply each job alone."""
        try:
            if self._stale:
                await self._rebuild()
            changes = await self._store(group)
        except Exception as error:
            await self._refuse(group, error)
            return
        try:
            await self._index(group, changes)
        except Exception as error:
            for job in group:
                job.settle(error)
            return
        written = deque(changes)
        for job in group:
            job.settle([written.popleft() for _ in job.records or (job.delete,)])

    async def _refuse(self, group: list[_Job], error: Exception) -> None:
        # What is unavailable is so for each of them.
        if len(group) == 1 or not isinstance(error, LandseerError) or error.code == "UNAVAILABLE":
            for job in group:
                job.settle(error)
            return
        for job in group:
            await self._settle([job])

    async def _store(self, group: list[_Job]) -> list[StoreChange]:
        store = self._collection.store
        if group[0].delete:
            return [await self._workers.run(store.delete, group[0].delete)]
        records = [record for job in group for record in job.records]
        return await self._workers.run(store.put_many, records)

    async def _index(self, group: list[_Job], changes: list[StoreChange]) -> None:
        """Apply the changes to the index. If that fails, rebuild it from the store."""
        if self._collection.shared is not None:
            await self._follow(changes[-1].key)
        else:
            await self._apply(group, changes)
        self._count(changes, deleted=bool(group[0].delete))
        await self._collection.show_size()

    async def _follow(self, upto: int) -> None:
        """Apply what was written into a shared store up to a change; if that fails, it is tried again by itself."""
        try:
            await self._collection.follow_own(upto)
        except Exception as error:
            log.warning("what was written cannot be read back yet: %s", error)
            raise Unfinished(f"the change is stored, but not in the index yet ({error}); try again") from error

    async def _apply(self, group: list[_Job], changes: list[StoreChange]) -> None:
        try:
            net = _net(group, changes, self._collection.profile.sizes.channels)
            await self._collection.apply(*net, changes[-1].key)
        except Exception:
            log.exception("updating the index failed; rebuilding it from the store")
            self._stale = True
            try:
                await self._rebuild()
            except IndexLoading as error:
                raise Unfinished("the change is stored, but not in the index yet; try again") from error

    def _count(self, changes: list[StoreChange], *, deleted: bool) -> None:
        metrics = self._collection.metrics
        with only_metrics():
            metrics.write_batch.observe(len(changes))
            for change in changes:
                outcome = "deleted" if deleted else "added" if change.replaced_key is None else "replaced"
                metrics.ingested.labels(outcome).inc()

    async def _rebuild(self) -> None:
        try:
            await self._collection.load()
        except Exception as error:
            log.exception("rebuilding the index from the store failed")
            raise IndexLoading("the index cannot be built from the store now; nothing was done: try again") from error
        self._stale = False


def _net(
    group: list[_Job], changes: list[StoreChange], size: int
) -> tuple[list[int], NDArray[np.float32], list[Record], list[int]]:
    """Return keys, vectors and records to add, and keys to remove; an id put twice in the group is added once."""
    gone = [change.replaced_key for change in changes if change.replaced_key is not None]
    records = [record for job in group for record in job.records]
    if not records:
        return [], np.empty((0, size), np.float32), [], gone
    kept = [pair for pair in zip(changes, records, strict=True) if pair[0].key not in set(gone)]
    fresh = {change.key for change in changes}
    vectors = np.stack([record.descriptor for _, record in kept]).astype(np.float32)
    kept_records = [record for _, record in kept]
    return [change.key for change, _ in kept], vectors, kept_records, [key for key in gone if key not in fresh]
