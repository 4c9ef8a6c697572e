"""Writes described pictures into the store: one record for each, however often a worker was asked for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from landseer.client.uploads import VERSION
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.store.record import check_id, check_metadata
from landseer.ensemble.store.record_store import RecordStore
from landseer.ops.bulk.outcome import Outcome
from landseer.ops.bulk.sources import BulkPicture, NotIndexed

Metadata = dict[str, str]
LOST = (
    "each process that described it, or a picture beside it, ended, perhaps for lack of memory; run the command again, "
    "with fewer --workers if memory was short"
)


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Counts of a run."""

    found: int
    """Pictures."""
    skipped: int = 0
    """That the store has already."""
    indexed: int = 0
    replaced: int = 0
    """Of those indexed."""
    failures: list[NotIndexed] = dataclasses.field(default_factory=list)


class Filling:
    """The pictures that a store lacks, and their way into it."""

    def __init__(
        self,
        store: RecordStore,
        pictures: Sequence[BulkPicture],
        metadata: Callable[[BulkPicture], Metadata],
        *,
        replace: bool = False,
    ) -> None:
        """metadata: returns what was given for a picture, without its version.

        replace: whether pictures that the store has, and that have not changed, are described again.
        """
        self._store, self._metadata = store, metadata
        self.tally = Tally(found=len(pictures))
        known = {} if replace else _versions(store)
        # Where nobody knows whether a picture has changed, the one that is there stays.
        self.waiting = [
            one for one in pictures if one.id not in known or (one.version or known[one.id]) != known[one.id]
        ]
        """Pictures to describe, in order."""
        self.tally.skipped = len(pictures) - len(self.waiting)
        self.waiting = [one for one in self.waiting if self._is_storable(one)]
        self.settled = 0
        """Number of pictures in `waiting` that were written or failed."""
        self._is_settled = bytearray(len(self.waiting))

    def write(self, outcomes: Iterable[Outcome]) -> None:
        """Write records in one transaction, and note failures. Errors of `Store.put_many`."""
        fresh = {one.position: one for one in outcomes if not self._is_settled[one.position]}
        records = [
            dataclasses.replace(one.record, metadata=self._all_metadata(self.waiting[position]))
            for position, one in fresh.items()
            if one.record is not None
        ]
        changes = self._store.put_many(records) if records else []
        self.tally.indexed += len(changes)
        self.tally.replaced += sum(change.replaced_key is not None for change in changes)
        for position, one in fresh.items():
            self._settle(position, one.why if one.record is None else "")

    def give_up(self) -> None:
        """Note as failures the pictures of which nothing was heard."""
        for position, settled in enumerate(bytes(self._is_settled)):
            if not settled:
                self._settle(position, LOST)

    def _settle(self, position: int, why: str) -> None:
        self._is_settled[position] = True
        self.settled += 1
        if why:
            self.tally.failures.append(NotIndexed(id=self.waiting[position].id, why=why))

    def _is_storable(self, picture: BulkPicture) -> bool:
        try:
            check_id(picture.id)
            check_metadata(self._all_metadata(picture))
        except InvalidInput as error:
            self.tally.failures.append(NotIndexed(id=picture.id, why=str(error)))
            return False
        return True

    def _all_metadata(self, picture: BulkPicture) -> Metadata:
        version = {VERSION: picture.version} if picture.version else {}
        return {"path": picture.absolute, **self._metadata(picture), **version}


def _versions(store: RecordStore) -> dict[str, str]:
    """Return the version of each picture in the store, by id; empty where it has none."""
    by_key = {
        int(key): metadata.get(VERSION, "")
        for keys, some in store.metadata.scan()
        for key, metadata in zip(keys, some, strict=True)
    }
    keys, ids = store.metadata.ids()
    return {id: by_key[int(key)] for key, id in zip(keys, ids, strict=True)}
