"""Values of metadata in memory: a row for each picture, in the order of keys, and a column for each field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.filters.expression import AnyOf, Comparison, Expression, Filter, Not
from landseer.ensemble.filters.kinds import NUMERIC, Kind, numeric
from landseer.ensemble.filters.predicates import exact_text, number_test, text_test
from landseer.ensemble.index.selection import Selection

Keys = NDArray[np.int64]
Mask = NDArray[np.bool_]
DEAD = 0.25
"""Share of removed pictures above which their rows are dropped."""
LEAST_DEAD = 1024


class Column(Protocol):
    """The values of one field."""

    def extend(self, texts: Sequence[str | None]) -> None:
        """Append rows; None for a picture without the field."""

    def keep(self, rows: Mask) -> None:
        """Drop the other rows of all [n]."""

    def test(self, comparison: Comparison, filter: str) -> Mask:
        """Return which rows satisfy a comparison: [n]. InvalidInput; filter: the text of it all."""

    def effort(self, comparison: Comparison) -> int:
        """Return how many texts `test` will look through."""

    @property
    def there(self) -> Mask:
        """Which rows have a value: [n]."""

    @property
    def nbytes(self) -> int:
        """Memory, about."""


class Columns:
    """The fields of pictures. For one thread at a time."""

    def __init__(self, kinds: Mapping[str, Kind | None]) -> None:
        """kinds: by field; None for a field that has none."""
        self._keys = _Growing(np.int64)
        self._alive = _Growing(np.bool_)
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
        alive = self._alive.values
        alive[places[np.isin(there[places], keys)]] = False
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead > max(LEAST_DEAD, DEAD * len(alive)):
            rows = alive.copy()
            self._keys.keep(rows)
            self._alive.keep(rows)
            for column in self._columns.values():
                column.keep(rows)

    def select(
        self, filter: Filter, ids: Callable[[Comparison], Selection], spend: Callable[[int], None] = lambda texts: None
    ) -> Selection:
        """Return the pictures that a filter lets through. InvalidInput for a value of another kind than its field's.

        ids: returns the pictures whose ids satisfy a comparison; spend: told before so many texts are looked through.
        """
        keys = self._keys.values
        return Selection.of(keys[self._alive.values & self._mask(filter.root, filter.text, ids, spend)])

    def pictures(self, name: str) -> int:
        """Return how many pictures have a value of a field."""
        return int(np.count_nonzero(self._columns[name].there & self._alive.values))

    def nbytes(self, name: str) -> int:
        """Return the memory of a field, about."""
        return self._columns[name].nbytes

    def _mask(
        self,
        expression: Expression,
        filter: str,
        ids: Callable[[Comparison], Selection],
        spend: Callable[[int], None],
    ) -> Mask:
        if isinstance(expression, Comparison):
            if expression.field is None:
                return ids(expression).has(self._keys.values)
            column = self._columns[expression.field]
            spend(column.effort(expression))
            return column.test(expression, filter)
        if isinstance(expression, Not):
            return ~self._mask(expression.term, filter, ids, spend)
        join = np.logical_or if isinstance(expression, AnyOf) else np.logical_and
        return reduce(join, (self._mask(term, filter, ids, spend) for term in expression.terms))


class _Growing:
    """An array that grows at its end."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._room = np.empty(0, dtype)
        self.size = 0

    @property
    def values(self) -> NDArray[Any]:
        return self._room[: self.size]

    @property
    def nbytes(self) -> int:
        return self._room.nbytes

    def extend(self, more: NDArray[Any]) -> None:
        end = self.size + len(more)
        if end > len(self._room):
            self._room = np.concatenate([self.values, np.empty(max(len(more), self.size), self._room.dtype)])
        self._room[self.size : end] = more
        self.size = end

    def keep(self, rows: Mask) -> None:
        self._room = self.values[rows]
        self.size = len(self._room)


class _NumberColumn:
    """Numbers, truths or times; NaN for none."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._values = _Growing(np.float64)

    def extend(self, texts: Sequence[str | None]) -> None:
        found = (None if text is None else numeric(text, self._kind) for text in texts)
        self._values.extend(np.array([np.nan if one is None else one for one in found], np.float64))

    def keep(self, rows: Mask) -> None:
        self._values.keep(rows)

    def test(self, comparison: Comparison, filter: str) -> Mask:
        return number_test(comparison, self._kind, filter)(self._values.values)

    def effort(self, comparison: Comparison) -> int:
        return 0

    @property
    def there(self) -> Mask:
        return np.asarray(~np.isnan(self._values.values))

    @property
    def nbytes(self) -> int:
        return self._values.nbytes


class _TextColumn:
    """Texts: each different one once, and its number for each picture, so that it is compared once."""

    def __init__(self, kind: Kind | None) -> None:
        self._kind: Kind | None = kind
        self._numbers: dict[str, int] = {}
        self._measured = self._text_bytes = 0
        """How many of the texts were measured, and what they take."""
        self._rows = _Growing(np.int32)
        """-1 for none."""

    def extend(self, texts: Sequence[str | None]) -> None:
        known = self._numbers
        self._rows.extend(
            np.array([-1 if one is None else known.setdefault(one, len(known)) for one in texts], np.int32)
        )

    def keep(self, rows: Mask) -> None:
        self._rows.keep(rows)
        texts = list(self._numbers)
        used, places = np.unique(self._rows.values, return_inverse=True)
        missing = int(len(used) > 0 and used[0] < 0)
        self._rows.values[:] = places - missing
        self._numbers = {texts[number]: place for place, number in enumerate(used[missing:].tolist())}
        self._measured = self._text_bytes = 0

    def test(self, comparison: Comparison, filter: str) -> Mask:
        test = text_test(comparison, self._kind, filter)
        if (text := exact_text(comparison, self._kind)) is not None:
            number = self._numbers.get(text)
            return (
                np.asarray(self._rows.values == number) if number is not None else np.zeros(self._rows.size, np.bool_)
            )
        # The last one is for pictures without the field, whose number is -1.
        passed = np.array([*map(test, self._numbers), False], np.bool_)
        return np.asarray(passed[self._rows.values])

    def effort(self, comparison: Comparison) -> int:
        return 0 if exact_text(comparison, self._kind) is not None else len(self._numbers)

    @property
    def there(self) -> Mask:
        return np.asarray(self._rows.values >= 0)

    @property
    def nbytes(self) -> int:
        for text in islice(self._numbers, self._measured, None):
            self._text_bytes += len(text) + _TEXT_BYTES
        self._measured = len(self._numbers)
        return self._rows.nbytes + self._text_bytes


_TEXT_BYTES = 150
"""Of a different text beside its characters: the object, and its place in a dictionary."""


def _column(kind: Kind | None) -> Column:
    return _NumberColumn(kind) if kind in NUMERIC else _TextColumn(kind)
