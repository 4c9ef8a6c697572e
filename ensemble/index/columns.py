"""Values of metadata in memory: a row for each picture, in the order of keys, and a column for each field.

One thread changes the columns. Filters look at a `Snapshot` of them, which does not change and costs nothing to take.

In files: `keys.npy`, and for each field in the order of their names `0.npy`, numbers as float64 or the places of texts
as int32, -1 for none; texts are in `0.txt`, one after the other, and `0-ends.npy` tells where each one ends, in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.filters.expression import AnyOf, Comparison, Expression, Filter, Not
from landseer.ensemble.filters.kinds import NUMERIC, Kind, numeric
from landseer.ensemble.filters.predicates import TextTest, exact_text, number_test, text_test

Keys = NDArray[np.int64]
Mask = NDArray[np.bool_]
Kinds = Mapping[str, Kind | None]
"""Of fields; None for a field that has none."""
Ids = Callable[[Comparison, Keys], Mask]
"""Returns which of the pictures under keys [n] have an id that satisfies a comparison: [n]."""
KEYS = "keys.npy"
DEAD = 0.25
"""Share of removed pictures above which their rows are dropped."""
LEAST_DEAD = 1024
TESTED = 4096
"""Texts that are compared at a time: a millisecond, after which other threads get their turn."""


class Values(Protocol):
    """The values of one field at one moment: [n]."""

    def test(self, comparison: Comparison, filter: str, go_on: Callable[[], None]) -> Mask:
        """Return which rows satisfy a comparison: [n]. InvalidInput; filter: the text of it all.

        go_on: called from time to time; what it raises ends the test.
        """

    def effort(self, comparison: Comparison) -> int:
        """Return how many texts `test` will look through."""

    def save(self, file: Path, rows: Mask) -> None:
        """Write some rows of all [n]. file: its name without a suffix. OSError."""

    @property
    def there(self) -> Mask:
        """Which rows have a value: [n]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """The columns at one moment. Threads may share it."""

    keys: Keys
    """[n], ascending."""
    alive: Mask
    """[n], False for removed pictures."""
    values: Mapping[str, Values]
    """By field."""

    @property
    def newest(self) -> int:
        """The largest key; 0 without any."""
        return int(self.keys[-1]) if len(self.keys) else 0

    def select(self, filter: Filter, ids: Ids, spend: Callable[[int], None] = lambda texts: None) -> Keys:
        """Return the keys of the pictures that a filter lets through, ascending.

        InvalidInput for a value of another kind than its field's. spend: told before so many texts are looked through,
        and, with 0, while they are; what it raises ends the search.
        """
        return self.keys[self.alive & self._mask(filter.root, filter.text, ids, spend)]

    def effort(self, expression: Expression) -> int:
        """Return how many texts `select` will look through, beside ids."""
        if isinstance(expression, Comparison):
            return 0 if expression.field is None else self.values[expression.field].effort(expression)
        return sum(map(self.effort, (expression.term,) if isinstance(expression, Not) else expression.terms))

    def pictures(self, name: str) -> int:
        """Return how many pictures have a value of a field."""
        return int(np.count_nonzero(self.values[name].there & self.alive))

    def save(self, folder: Path) -> None:
        """Write the pictures that are not removed into an empty folder. OSError."""
        np.save(folder / KEYS, self.keys[self.alive])
        for place, name in enumerate(sorted(self.values)):
            self.values[name].save(folder / str(place), self.alive)

    def _mask(self, expression: Expression, filter: str, ids: Ids, spend: Callable[[int], None]) -> Mask:
        if isinstance(expression, Comparison):
            if expression.field is None:
                return ids(expression, self.keys)
            column = self.values[expression.field]
            spend(column.effort(expression))
            return column.test(expression, filter, lambda: spend(0))
        if isinstance(expression, Not):
            return ~self._mask(expression.term, filter, ids, spend)
        join = np.logical_or if isinstance(expression, AnyOf) else np.logical_and
        return reduce(join, (self._mask(term, filter, ids, spend) for term in expression.terms))


class Column(Protocol):
    """The values of one field, which change."""

    def extend(self, texts: Sequence[str | None]) -> None:
        """Append rows; None for a picture without the field."""

    def keep(self, rows: Mask) -> None:
        """Drop the other rows of all [n]."""

    def snapshot(self) -> Values:
        """Return the values as they are now."""

    def load(self, file: Path, count: int) -> None:
        """Read the values of so many rows, as `Values.save` wrote them, into an empty column. ValueError; OSError."""

    @property
    def nbytes(self) -> int:
        """Memory, about."""


class Columns:
    """The fields of pictures. For one thread at a time; its snapshots are for all."""

    def __init__(self, kinds: Kinds) -> None:
        self._keys = Growing(np.int64)
        self._alive = Growing(np.bool_)
        self._columns: dict[str, Column] = {name: _column(kind) for name, kind in kinds.items()}

    def add(self, keys: Keys, metadata: Sequence[Mapping[str, str]]) -> None:
        """Append pictures under ascending keys [n], above all that there are; those that are there are left alone."""
        last = int(self._keys.values[-1]) if self._keys.size else -1
        fresh = np.flatnonzero(keys > last)
        self._keys.extend(keys[fresh])
        self._alive.extend(np.ones(len(fresh), np.bool_))
        for name, column in self._columns.items():
            column.extend([metadata[place].get(name) for place in fresh])

    def remove(self, keys: Keys) -> None:
        """Remove the pictures under keys [n]; missing keys are ignored."""
        there = self._keys.values
        places = np.searchsorted(there, keys)
        places = places[places < len(there)]
        places = places[np.isin(there[places], keys)]
        if not len(places):
            return
        self._alive.unshare()
        alive = self._alive.values
        alive[places] = False
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead > max(LEAST_DEAD, DEAD * len(alive)):
            rows = alive.copy()
            self._keys.keep(rows)
            self._alive.keep(rows)
            for column in self._columns.values():
                column.keep(rows)

    def snapshot(self) -> Snapshot:
        """Return the columns as they are now; later changes do not show in it."""
        values = {name: column.snapshot() for name, column in self._columns.items()}
        return Snapshot(keys=self._keys.values, alive=self._alive.values, values=values)

    def load(self, folder: Path, living: Keys) -> None:
        """Read what a snapshot saved into empty columns, without all pictures but those of the keys `living`.

        living: [n], ascending. ValueError if it is not what was saved, or lacks one of these; OSError.
        """
        keys = np.load(folder / KEYS, allow_pickle=False)
        if keys.dtype != np.int64 or keys.ndim != 1 or (np.diff(keys, prepend=-1) <= 0).any():
            raise ValueError(f"{folder / KEYS} has {keys.dtype} of shape {keys.shape}; expected int64 that increase")
        for place, name in enumerate(sorted(self._columns)):
            self._columns[name].load(folder / str(place), len(keys))
        self._keys.extend(keys)
        self._alive.extend(np.ones(len(keys), np.bool_))
        gone = np.setdiff1d(keys, living, assume_unique=True)
        if len(keys) - len(gone) != len(living):
            there = len(keys) - len(gone)
            raise ValueError(f"{folder} has {there:,} of the store's {len(living):,} pictures; expected all of them")
        self.remove(gone)

    def nbytes(self, name: str) -> int:
        """Return the memory of a field, about."""
        return self._columns[name].nbytes

    @property
    def total_bytes(self) -> int:
        """Memory of all, about."""
        return self._keys.nbytes + self._alive.nbytes + sum(column.nbytes for column in self._columns.values())


class Growing:
    """An array that grows at its end. What was read of it stays as it was, except for what is written into it."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._room = np.empty(0, dtype)
        self.size = 0

    @property
    def values(self) -> NDArray[Any]:
        """[size]."""
        return self._room[: self.size]

    @property
    def nbytes(self) -> int:
        """Memory, with the room to grow."""
        return self._room.nbytes

    def extend(self, more: NDArray[Any]) -> None:
        """Append values [n]."""
        end = self.size + len(more)
        if end > len(self._room):
            self._room = np.concatenate([self.values, np.empty(max(len(more), self.size), self._room.dtype)])
        self._room[self.size : end] = more
        self.size = end

    def keep(self, rows: Mask) -> None:
        """Drop the other rows of all [size]."""
        self._room = self.values[rows]
        self.size = len(self._room)

    def unshare(self) -> None:
        """Copy it, so that what is written into it does not show in what was read before."""
        self._room = self._room.copy()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Numbers:
    kind: Kind
    values: NDArray[np.float64]
    """[n], NaN for none."""

    def test(self, comparison: Comparison, filter: str, go_on: Callable[[], None]) -> Mask:
        return number_test(comparison, self.kind, filter)(self.values)

    def effort(self, comparison: Comparison) -> int:
        return 0

    def save(self, file: Path, rows: Mask) -> None:
        np.save(file.with_suffix(".npy"), self.values[rows])

    @property
    def there(self) -> Mask:
        return np.asarray(~np.isnan(self.values))


class _NumberColumn:
    """Numbers, truths or times."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._values = Growing(np.float64)

    def extend(self, texts: Sequence[str | None]) -> None:
        found = (None if text is None else numeric(text, self._kind) for text in texts)
        self._values.extend(np.array([np.nan if one is None else one for one in found], np.float64))

    def keep(self, rows: Mask) -> None:
        self._values.keep(rows)

    def snapshot(self) -> Values:
        return _Numbers(kind=self._kind, values=self._values.values)

    def load(self, file: Path, count: int) -> None:
        self._values.extend(_array(file.with_suffix(".npy"), np.float64, count))

    @property
    def nbytes(self) -> int:
        return self._values.nbytes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Texts:
    kind: Kind | None
    rows: NDArray[np.int32]
    """[n], the number of each picture's text; -1 for none."""
    numbers: Mapping[str, int]
    """Of texts; there may be more, which no row has."""
    texts: Sequence[str]
    """By number; there may be more."""
    count: int
    """Different texts of these rows and earlier ones."""

    def test(self, comparison: Comparison, filter: str, go_on: Callable[[], None]) -> Mask:
        test = text_test(comparison, self.kind, filter)
        if (text := exact_text(comparison, self.kind)) is not None:
            number = self.numbers.get(text)
            return np.zeros(len(self.rows), np.bool_) if number is None else np.asarray(self.rows == number)
        if len(self.rows) < self.count:
            used, places = np.unique(self.rows, return_inverse=True)
            some = [number for number in used.tolist() if number >= 0]
            found = passed([self.texts[number] for number in some], len(some), test, go_on)
            # The numbers are ascending, so -1 comes first.
            return np.asarray(np.concatenate([np.zeros(len(used) - len(some), np.bool_), found])[places])
        # The last one is for pictures without the field, whose number is -1.
        return np.asarray(np.append(passed(self.texts, self.count, test, go_on), False)[self.rows])

    def effort(self, comparison: Comparison) -> int:
        return 0 if exact_text(comparison, self.kind) is not None else min(self.count, len(self.rows))

    def save(self, file: Path, rows: Mask) -> None:
        used, places = np.unique(self.rows[rows], return_inverse=True)
        missing = int(len(used) > 0 and used[0] < 0)
        texts = [self.texts[number].encode() for number in used[missing:].tolist()]
        np.save(file.with_suffix(".npy"), (places - missing).astype(np.int32))
        np.save(_ends(file), np.cumsum([len(text) for text in texts], dtype=np.int64))
        file.with_suffix(".txt").write_bytes(b"".join(texts))

    @property
    def there(self) -> Mask:
        return np.asarray(self.rows >= 0)


def passed(texts: Sequence[str], count: int, test: TextTest, go_on: Callable[[], None]) -> Mask:
    """Return which of the first `count` texts pass a test: [count]. go_on: called between some and the next."""
    found = np.empty(count, np.bool_)
    for start in range(0, count, TESTED):
        go_on()
        some = texts[start : min(start + TESTED, count)]
        found[start : start + len(some)] = [*map(test, some)]
    return found


class _TextColumn:
    """Texts: each different one once, and its number for each picture, so that it is compared once."""

    def __init__(self, kind: Kind | None) -> None:
        self._kind: Kind | None = kind
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._text_bytes = 0
        self._rows = Growing(np.int32)

    def extend(self, texts: Sequence[str | None]) -> None:
        self._rows.extend(np.array([-1 if one is None else self._number(one) for one in texts], np.int32))

    def keep(self, rows: Mask) -> None:
        self._rows.keep(rows)
        # New ones, as snapshots still use those of now.
        before, self._numbers, self._texts, self._text_bytes = self._texts, {}, [], 0
        used, places = np.unique(self._rows.values, return_inverse=True)
        numbers = [-1 if number < 0 else self._number(before[number]) for number in used.tolist()]
        self._rows.values[:] = np.array(numbers, np.int32)[places]

    def snapshot(self) -> Values:
        rows, texts = self._rows.values, self._texts
        return _Texts(kind=self._kind, rows=rows, numbers=self._numbers, texts=texts, count=len(texts))

    def load(self, file: Path, count: int) -> None:
        ends, data = np.load(_ends(file), allow_pickle=False).tolist(), file.with_suffix(".txt").read_bytes()
        self._texts = [data[start:end].decode() for start, end in pairwise([0, *ends])]
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._text_bytes = sum(map(len, self._texts)) + TEXT_BYTES * len(self._texts)
        rows = _array(file.with_suffix(".npy"), np.int32, count)
        if len(self._numbers) != len(ends) or len(data) != [0, *ends][-1] or not _within(rows, len(ends)):
            raise ValueError(f"{file}.npy does not fit to the {len(self._numbers):,} different texts beside it")
        self._rows.extend(rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._text_bytes

    def _number(self, text: str) -> int:
        """Return the number of a text, a new one if it has none."""
        number = self._numbers.setdefault(text, len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
            self._text_bytes += len(text) + TEXT_BYTES
        return number


TEXT_BYTES = 150
"""Of a different text beside its characters: the object, and its places in a dictionary and a list."""


def _ends(file: Path) -> Path:
    return file.with_name(f"{file.name}-ends.npy")


def _array(file: Path, dtype: type[np.generic], count: int) -> NDArray[Any]:
    found = np.load(file, allow_pickle=False)
    if found.dtype != dtype or found.shape != (count,):
        raise ValueError(f"{file} has {found.dtype} of shape {found.shape}; expected {count:,} of {dtype.__name__}")
    return np.asarray(found)


def _within(rows: NDArray[np.int32], count: int) -> bool:
    return bool(rows.min(initial=0) >= -1 and rows.max(initial=-1) < count)


def _column(kind: Kind | None) -> Column:
    return _NumberColumn(kind) if kind in NUMERIC else _TextColumn(kind)
