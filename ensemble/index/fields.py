"""Filters answered: which pictures a filter lets through.

Indexed fields are columns in memory, kept up to date with the index. A filter that names another field reads the
metadata of all pictures from the store, and what it read is kept until the next change; a store of more than `SCANNED`
pictures refuses it. What a filter let through is kept until the next change, too, so that searches with the same filter
share it, and calls of the engine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import InvalidInput, Overloaded
from landseer.ensemble.filters.expression import Comparison, Filter
from landseer.ensemble.filters.kinds import IndexedField, Kind
from landseer.ensemble.filters.parser import MOST_CHARACTERS
from landseer.ensemble.filters.predicates import text_test
from landseer.ensemble.index.columns import Columns
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ensemble.workers import Workers

Keys = NDArray[np.int64]
SCANNED = 100_000
"""Most pictures whose metadata are read from the store for a filter."""
LOOKED_THROUGH = 5_000_000
"""Most texts and ids that a filter looks through: changes and other filters wait for it."""
KEPT_BYTES = 32 * 2**20
"""Most bytes of selections that are kept; the latest one in any case."""
_ENTRY_BYTES = 2 * MOST_CHARACTERS
"""Of a selection that is kept, beside its bitmap: its filter."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtered:
    """What a filter lets through."""

    selection: Selection
    matched: int
    """Number of pictures."""


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
class _Kept:
    """A selection, and how long it is valid."""

    filtered: Filtered
    mark: int
    """The change of the columns, or of the store, that it was made after."""
    stored: bool
    """Whether it was made from the store."""


class Fields:
    """The fields of a collection's pictures. One thread owns them and works in order, so that nothing is locked."""

    def __init__(self, store: Store, indexed: Sequence[IndexedField]) -> None:
        self._store = store
        self._kinds: dict[str, Kind | None] = {field.name: field.kind for field in indexed}
        self._columns = Columns(self._kinds)
        self._changes = 0
        self._read: tuple[int, frozenset[str], Columns] | None = None
        """Columns from the store: its last change then, and the names of those without a kind."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # More than calls may be open, or the writer would be refused.
        self._workers = Workers("fields", threads=1, queue=4096)

    async def select(self, filter: Filter) -> Filtered:
        """Return the pictures that a filter lets through.

        InvalidInput for a value of another kind than its field's, for a field that is not indexed if there are too many
        pictures to read, and for more than `LOOKED_THROUGH` texts to look through. Overloaded.
        """
        stop = threading.Event()
        try:
            return await self._workers.run(self._select, filter, stop)
        finally:
            # Cancelled, or too late: what was begun for this call alone ends soon.
            stop.set()

    async def load(self, batches: Iterator[tuple[Keys, list[dict[str, str]]]]) -> None:
        """Read the indexed fields from the batches of a store's `metadata.scan`; those before are used until then."""
        if self._kinds:
            await self._workers.run(self._load, batches)

    async def apply(self, keys: Sequence[int], records: Sequence[Record], removed: Sequence[int]) -> None:
        """Add pictures under keys, then remove the removed keys."""
        await self._workers.run(self._change, keys, records, removed)

    async def stats(self) -> list[FieldStats]:
        """Return figures of the indexed fields."""
        return await self._workers.run(self._stats)

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._workers.close()

    # Everything below runs on the worker thread.

    def _select(self, filter: Filter, stop: threading.Event) -> Filtered:
        kept = self._kept.get(filter.text)
        if kept is not None and kept.mark == (self._store.metadata.sequence() if kept.stored else self._changes):
            self._kept.move_to_end(filter.text)
            return kept.filtered
        in_memory = bool(self._kinds) and filter.fields <= self._kinds.keys()
        mark = self._changes if in_memory else self._store.metadata.sequence()
        columns = self._columns if in_memory else self._from_store(filter, mark)
        effort = _Effort(stop)
        ids = _Ids(self._store, filter.text, effort)
        selection = columns.select(filter, ids.satisfying, effort.spend)
        filtered = Filtered(selection=selection, matched=int(np.count_nonzero(selection.allowed)))
        self._keep(filter.text, _Kept(filtered=filtered, mark=mark, stored=not in_memory))
        return filtered

    def _keep(self, text: str, kept: _Kept) -> None:
        self._kept[text] = kept
        self._kept.move_to_end(text)
        while len(self._kept) > 1 and self._nbytes() > KEPT_BYTES:
            self._kept.popitem(last=False)

    def _nbytes(self) -> int:
        return sum(_ENTRY_BYTES + len(kept.filtered.selection.allowed) for kept in self._kept.values())

    def _from_store(self, filter: Filter, sequence: int) -> Columns:
        """Return columns with the fields of a filter, read from the store; only ids, if it names no fields."""
        unknown = filter.fields - self._kinds.keys()
        if self._read is not None and self._read[0] == sequence and unknown <= self._read[1]:
            return self._read[2]
        columns = Columns({**self._kinds, **dict.fromkeys(unknown)} if filter.fields else {})
        if filter.fields:
            self._check_size(sorted(unknown))
            for keys, metadata in self._store.metadata.scan():
                columns.add(keys, metadata)
            self._read = (sequence, unknown, columns)
        else:
            keys, _ = self._store.metadata.ids()
            columns.add(np.sort(keys), [{}] * len(keys))
        return columns

    def _check_size(self, unknown: Sequence[str]) -> None:
        count = self._store.count()
        if count > SCANNED:
            raise InvalidInput(
                "filter",
                f"{unknown[0]} is not indexed, and {count:,} pictures are too many to read for a filter (at most "
                f"{SCANNED:,}); start the server with `landseer serve --index-field {unknown[0]}`, or NAME:KIND, see "
                "docs/filters.md",
            )

    def _load(self, batches: Iterator[tuple[Keys, list[dict[str, str]]]]) -> None:
        columns = Columns(self._kinds)
        for keys, metadata in batches:
            columns.add(keys, metadata)
        self._columns = columns
        self._changed()

    def _change(self, keys: Sequence[int], records: Sequence[Record], removed: Sequence[int]) -> None:
        if self._kinds:
            self._columns.add(np.array(keys, np.int64), [record.metadata for record in records])
            self._columns.remove(np.array(removed, np.int64))
        self._changed()

    def _changed(self) -> None:
        """Forget what was valid until this change."""
        self._changes += 1
        self._read = None
        self._kept.clear()

    def _stats(self) -> list[FieldStats]:
        columns = self._columns
        return [
            FieldStats(name=name, kind=kind, pictures=columns.pictures(name), bytes=columns.nbytes(name))
            for name, kind in self._kinds.items()
            if kind is not None
        ]


class _Effort:
    """What a filter has looked through so far."""

    def __init__(self, stop: threading.Event) -> None:
        """stop: set when nobody waits for the filter any more."""
        self._stop, self._spent = stop, 0

    def spend(self, texts: int) -> None:
        """Note that so many texts are looked through next. InvalidInput if they are too many; Overloaded to stop."""
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

    def __init__(self, store: Store, filter: str, effort: _Effort) -> None:
        self._store, self._filter, self._effort = store, filter, effort
        self._read: dict[str, tuple[Keys, list[str]]] = {}

    def satisfying(self, comparison: Comparison) -> Selection:
        """Return the pictures whose ids satisfy a comparison."""
        value = comparison.value
        starts = comparison.operator == "=" or (comparison.operator == ":" and len(value.pieces) > 1)
        prefix = value.pieces[0] if starts else ""
        self._effort.spend(0)
        if prefix not in self._read:
            self._read[prefix] = self._store.metadata.ids(prefix)
        keys, ids = self._read[prefix]
        self._effort.spend(len(ids))
        test = text_test(comparison, "text", self._filter)
        return Selection.of(keys[np.array([*map(test, ids)], np.bool_)])
