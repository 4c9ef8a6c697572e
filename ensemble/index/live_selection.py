"""What a filter lets through, at each moment that it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from landseer.ensemble.filters.expression import Comparison, Filter
from landseer.ensemble.filters.predicates import text_test
from landseer.ensemble.index.change_log import Change, ChangeLog
from landseer.ensemble.index.columns import Columns, Keys, Kinds, Mask
from landseer.ensemble.index.selection import Selection


@dataclass(frozen=True, kw_only=True, eq=False)
class Passed:
    """What a filter lets through, as of one moment."""

    selection: Selection
    newest: int
    """It tells of keys up to this."""
    matched: int
    """Number of pictures."""
    position: int
    """Changes in the log that it knows of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed:
    """What a filter lets through, for a list that is read in one piece.

    As of one moment before: a picture that is replaced meanwhile is still listed as it was when the list began.
    """

    selection: LiveSelection
    passed: Passed

    def wants(self, key: int, id: str, metadata: Callable[[], Mapping[str, str]]) -> bool:
        """See `store.listing.Wanted`."""
        return self.selection.wants(self.passed, key, id, metadata)


class LiveSelection:
    """The pictures that a filter lets through. Threads may share it.

    Looking through all pictures takes long, and pictures come and go meanwhile. So it looks at those that came since
    then, when it is asked: a search finds neither more nor less than if the filter had been applied at its moment.
    """

    def __init__(self, filter: Filter, kinds: Kinds, log: ChangeLog, passed: Passed) -> None:
        self._filter, self._kinds, self._log, self._passed = filter, kinds, log, passed
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory, beside its filter."""
        return self._passed.selection.allowed.nbytes

    @property
    def follows(self) -> bool:
        """Whether the log still has all changes that it has not looked at."""
        return self._log.reaches(self._passed.position)

    def now(self) -> Selection:
        """Return what is let through now. Overloaded if more changed than is remembered."""
        return self.passed().selection

    def passed(self) -> Passed:
        """Do the work of `now`, and tell how many there are."""
        with self._lock:
            if self._passed.position != self._log.position:
                self._passed = self._followed(self._passed)
            return self._passed

    def has(self, keys: Keys) -> Mask:
        """Return whether each of keys [n] is let through now: [n]. Overloaded as `now`."""
        return self.now().has(keys)

    def wants(self, passed: Passed, key: int, id: str, metadata: Callable[[], Mapping[str, str]]) -> bool:
        """Return whether a picture was let through at that moment, or is newer and is let through."""
        if key <= passed.newest:
            return key in passed.selection
        return bool(len(self._among([Change(key=key, id=id, metadata=metadata())])))

    def _followed(self, before: Passed) -> Passed:
        changes, position = self._log.since(before.position)
        added = self._among([one for one in changes if one.metadata is not None and one.key > before.newest])
        gone = np.array([one.key for one in changes if one.metadata is None], np.int64)
        left = before.selection.has(gone) | np.isin(gone, added)
        return Passed(
            selection=before.selection.changed(added, gone),
            newest=max([before.newest, *(one.key for one in changes)]),
            matched=before.matched + len(added) - int(np.count_nonzero(left)),
            position=position,
        )

    def _among(self, pictures: Sequence[Change]) -> Keys:
        """Return the keys of those of a few pictures that the filter lets through. Their keys ascend."""
        ids = [one.id for one in pictures]

        def satisfying(comparison: Comparison, keys: Keys) -> Mask:
            return np.array([*map(text_test(comparison, "text", self._filter.text), ids)], np.bool_)

        columns = Columns({name: self._kinds.get(name) for name in self._filter.fields})
        columns.add(np.array([one.key for one in pictures], np.int64), [one.metadata or {} for one in pictures])
        return columns.snapshot().select(self._filter, satisfying)
