"""Filters answered: which pictures a filter lets through.

Indexed fields are columns in memory, kept up to date with the index. A filter that names another field reads the
metadata of all pictures from the store; a store of more than `SCANNED` pictures refuses it.

Changes are applied on one thread, and filters look at snapshots of the columns on two others: one for those that are
done in milliseconds, one for the rest. So a slow filter delays neither a change nor a search with a quick filter. What
a filter let through is kept and follows the changes, so that searches with the same filter share it, and calls of the
engine.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import InvalidInput, Overloaded
from landseer.ensemble.filters.expression import Comparison, Filter
from landseer.ensemble.filters.kinds import IndexedField, Kind
from landseer.ensemble.filters.parser import MOST_CHARACTERS
from landseer.ensemble.filters.predicates import text_test
from landseer.ensemble.index.change_log import Change, ChangeLog
from landseer.ensemble.index.columns import Columns, Kinds, Mask, Snapshot, passed
from landseer.ensemble.index.live_selection import Listed, LiveSelection, Passed
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.record_store import RecordStore
from landseer.ensemble.workers import Workers

Keys = NDArray[np.int64]
Batch = tuple[Keys, list[dict[str, str]]]
"""Keys [n] and the metadata of pictures."""
SCANNED = 100_000
"""Most pictures whose metadata are read from the store for a filter."""
LOOKED_THROUGH = 5_000_000
"""Most texts and ids that a filter looks through: other such filters wait for it."""
QUICK = 50_000
"""Most texts that a filter may look through on the thread of the quick ones: 0.03 s."""
KEPT_BYTES = 32 * 2**20
"""Most bytes of selections that are kept; the latest one in any case."""
APPLIED_S = 1.0
"""Most seconds to wait until the index has the changes that were read from the store."""
_ENTRY_BYTES = 2 * MOST_CHARACTERS
"""Of a selection that is kept, beside its bitmap: its filter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtered:
    """What a filter lets through."""

    selection: LiveSelection
    passed: Passed
    """When it was asked for."""

    @property
    def matched(self) -> int:
        """Number of pictures."""
        return self.passed.matched

    @property
    def listed(self) -> Listed:
        """For a list."""
        return Listed(selection=self.selection, passed=self.passed)


@dataclass(frozen=True, kw_only=True)
class FieldStats:
    """Figures of an indexed field."""

    name: str
    kind: Kind
    pictures: int
    """Pictures that have a value of this kind."""
    bytes: int
    """Memory, about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """Columns from the store."""

    snapshot: Snapshot
    names: frozenset[str]
    """The fields without a kind among them."""
    position: int
    """Changes that were made before they were read."""


class Fields:
    """The fields of a collection's pictures. Changes are made by one caller after another."""

    def __init__(self, store: RecordStore, indexed: Sequence[IndexedField]) -> None:
        self._store = store
        self._kinds: dict[str, Kind | None] = {field.name: field.kind for field in indexed}
        self._changed = self._saved = 0
        self._columns = Columns(self._kinds)
        self._snapshot = self._columns.snapshot()
        self._log = ChangeLog()
        self._newest = self._applied = 0
        """The largest key that was added, and the largest after whose change the index is, too."""
        self._settled = threading.Condition()
        self._read: _Read | None = None
        self._kept: OrderedDict[str, LiveSelection] = OrderedDict()
        self._keeping = threading.Lock()
        # More than calls may be open, or the writer would be refused.
        self._changes = Workers("fields", threads=1, queue=4096)
        self._quick, self._slow = Workers("filters", threads=1), Workers("slow-filters", threads=1)

    async def select(self, filter: Filter) -> Filtered:
        """Return the pictures that a filter lets through.

        InvalidInput for a value of another kind than its field's, for a field that is not indexed if there are too many
        pictures to read, and for more than `LOOKED_THROUGH` texts to look through. Overloaded.
        """
        stop = threading.Event()
        try:
            selection = self._known(filter)
            if selection is None:
                workers = self._quick if self._is_quick(filter) else self._slow
                selection = await workers.run(self._selected, filter, stop)
            found = await self._quick.run(selection.passed)
        finally:
            # Cancelled, or too late: what was begun for this call alone ends soon.
            stop.set()
        return Filtered(selection=selection, passed=found)

    @property
    def kinds(self) -> Kinds:
        """Of the indexed fields."""
        return self._kinds

    @property
    def changed(self) -> int:
        """Pictures that were added or removed since the fields were saved in files, or are not in those loaded."""
        return self._changed - self._saved

    @property
    def nbytes(self) -> int:
        """Memory of the indexed fields, about."""
        return self._columns.total_bytes

    def unsaved(self) -> tuple[Snapshot, Callable[[], None]]:
        """Return the fields as they are now, and a function to call when they are in files."""
        columns, changed, snapshot = self._columns, self._changed, self._snapshot

        def settle() -> None:
            # `load` may have put others in their place.
            if self._columns is columns:
                self._saved = changed

        return snapshot, settle

    async def load(self, batches: Iterator[Batch], columns: Columns | None = None) -> None:
        """Read the indexed fields from the batches of a store's `metadata.scan`; those before are used until then.

        columns: those of the pictures of smaller keys. What is written meanwhile is to be applied afterwards.
        """
        await self._changes.run(self._load, batches, columns)

    async def add(self, keys: Sequence[int], records: Sequence[Record]) -> None:
        """Add pictures under keys [n], which ascend, before searches find them. Then call `remove`."""
        await self._changes.run(self._add, keys, records)

    async def remove(self, keys: Sequence[int]) -> None:
        """Remove pictures that searches find no more: what was added before is in the index, too."""
        await self._changes.run(self._remove, keys)

    async def stats(self) -> list[FieldStats]:
        """Return figures of the indexed fields."""
        return await self._quick.run(self._stats)

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        for workers in (self._changes, self._quick, self._slow):
            workers.close()

    # Changes: on a thread of their own.

    def _load(self, batches: Iterator[Batch], columns: Columns | None) -> None:
        columns, changed = columns or Columns(self._kinds), 0
        for keys, metadata in batches if self._kinds else ():
            columns.add(keys, metadata)
            changed += len(keys)
        self._columns, self._snapshot = columns, columns.snapshot()
        self._changed, self._saved = changed, 0
        self._log.restart()
        self._newest = self._store.metadata.sequence()
        self._settle()

    def _add(self, keys: Sequence[int], records: Sequence[Record]) -> None:
        self._changed += len(keys)
        if self._kinds:
            self._columns.add(np.array(keys, np.int64), [record.metadata for record in records])
            self._snapshot = self._columns.snapshot()
        pairs = zip(keys, records, strict=True)
        self._log.add([Change(key=key, id=record.id, metadata=record.metadata) for key, record in pairs])
        self._newest = max([self._newest, *keys])

    def _remove(self, keys: Sequence[int]) -> None:
        self._changed += len(keys)
        if self._kinds:
            self._columns.remove(np.array(keys, np.int64))
            self._snapshot = self._columns.snapshot()
        self._log.add([Change(key=key) for key in keys])
        self._settle()

    def _settle(self) -> None:
        with self._settled:
            self._applied = self._newest
            self._settled.notify_all()

    # Filters: on the threads of the quick and the slow ones.

    def _known(self, filter: Filter) -> LiveSelection | None:
        """Return what was found before, if it can follow the changes since."""
        with self._keeping:
            kept = self._kept.get(filter.text)
            if kept is None or not kept.follows:
                return None
            self._kept.move_to_end(filter.text)
            return kept

    def _keep(self, text: str, selection: LiveSelection) -> None:
        with self._keeping:
            self._kept[text] = selection
            self._kept.move_to_end(text)
            while len(self._kept) > 1 and sum(_ENTRY_BYTES + one.nbytes for one in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)

    def _in_memory(self, filter: Filter) -> bool:
        return bool(self._kinds) and filter.fields <= self._kinds.keys()

    def _is_quick(self, filter: Filter) -> bool:
        return self._in_memory(filter) and not filter.by_id and self._snapshot.effort(filter.root) <= QUICK

    def _selected(self, filter: Filter, stop: threading.Event) -> LiveSelection:
        # Another caller may have asked for the same meanwhile.
        if (kept := self._known(filter)) is not None:
            return kept
        effort = _Effort(stop)
        position, snapshot = self._log.position, self._snapshot
        if not self._in_memory(filter):
            read = self._from_store(filter, effort)
            position, snapshot = read.position, read.snapshot
        ids = _Ids(self._store, filter.text, effort)
        keys, newest = snapshot.select(filter, ids.satisfying, effort.spend), snapshot.newest
        if filter.by_id or not self._in_memory(filter):
            self._wait_until_applied(max(newest, ids.newest))
        found = Passed(selection=Selection.of(keys), newest=newest, matched=len(keys), position=position)
        selection = LiveSelection(filter, self._kinds, self._log, found)
        self._keep(filter.text, selection)
        return selection

    def _wait_until_applied(self, key: int) -> None:
        """Wait until the index is as new as what was read from the store.

        A picture that was replaced in the store is under its old key in the index for a moment, and the store has that
        no more.
        """
        with self._settled:
            self._settled.wait_for(lambda: self._applied >= key, APPLIED_S)

    def _from_store(self, filter: Filter, effort: _Effort) -> _Read:
        """Read columns with the fields of a filter from the store; only ids, if it names no fields."""
        unknown = filter.fields - self._kinds.keys()
        read, position = self._read, self._log.position
        if filter.fields and read is not None and unknown <= read.names and self._log.reaches(read.position):
            return read
        columns = Columns({**self._kinds, **dict.fromkeys(unknown)} if filter.fields else {})
        if not filter.fields:
            keys, _ = self._store.metadata.ids()
            columns.add(np.sort(keys), [{}] * len(keys))
            return _Read(snapshot=columns.snapshot(), names=unknown, position=position)
        self._check_size(sorted(unknown))
        for keys, metadata in self._store.metadata.scan():
            effort.spend(0)
            columns.add(keys, metadata)
        self._read = _Read(snapshot=columns.snapshot(), names=unknown, position=position)
        return self._read

    def _check_size(self, unknown: Sequence[str]) -> None:
        count = self._store.count()
        if count > SCANNED:
            raise InvalidInput(
                "filter",
                f"{unknown[0]} is not indexed, and {count:,} pictures are too many to read for a filter (at most "
                f"{SCANNED:,}); start the server with `landseer serve --index-field {unknown[0]}`, or NAME:KIND, see "
                "docs/filters.md",
            )

    def _stats(self) -> list[FieldStats]:
        snapshot = self._snapshot
        return [
            FieldStats(name=name, kind=kind, pictures=snapshot.pictures(name), bytes=self._columns.nbytes(name))
            for name, kind in self._kinds.items()
            if kind is not None
        ]


class _Effort:
    """What a filter has looked through so far."""

    def __init__(self, stop: threading.Event) -> None:
        """stop: set when nobody waits for the filter any more."""
        self._stop, self._spent = stop, 0

    def spend(self, texts: int) -> None:
        """Note that so many texts are looked through next. InvalidInput if they are too many; Overloaded to stop.

        Other threads go first, which otherwise wait 5 ms for the interpreter each time that they want it.
        """
        time.sleep(0)
        if self._stop.is_set():
            raise Overloaded("nobody waits for this filter any more")
        # The first comparison may look through as many as there are.
        if self._spent and self._spent + texts > LOOKED_THROUGH:
            raise InvalidInput(
                "filter",
                f"too much to look through: {self._spent + texts:,} texts and ids, all comparisons together; expected "
                f"at most {LOOKED_THROUGH:,}. Compare by = and without wildcards, index numbers as numbers, or make "
                "fewer comparisons",
            )
        self._spent += texts


class _Ids:
    """The ids that a filter asks for, each prefix read once."""

    def __init__(self, store: RecordStore, filter: str, effort: _Effort) -> None:
        self._store, self._filter, self._effort = store, filter, effort
        self._read: dict[str, tuple[Keys, list[str]]] = {}

    @property
    def newest(self) -> int:
        """The largest key of those that were read."""
        return max((int(keys.max(initial=0)) for keys, _ in self._read.values()), default=0)

    def satisfying(self, comparison: Comparison, keys: Keys) -> Mask:
        """Return which of the pictures under keys [n] have an id that satisfies a comparison: [n]."""
        value = comparison.value
        starts = comparison.operator == "=" or (comparison.operator == ":" and len(value.pieces) > 1)
        prefix = value.pieces[0] if starts else ""
        self._effort.spend(0)
        if prefix not in self._read:
            self._read[prefix] = self._store.metadata.ids(prefix)
        theirs, ids = self._read[prefix]
        self._effort.spend(len(ids))
        test = text_test(comparison, "text", self._filter)
        return Selection.of(theirs[passed(ids, len(ids), test, lambda: self._effort.spend(0))]).has(keys)
