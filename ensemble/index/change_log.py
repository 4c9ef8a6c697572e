"""The latest changes of a collection, with what filters look at, so that what a filter lets through can follow them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from landseer.ensemble.errors import Overloaded

MOST, MOST_CHARACTERS = 4096, 8 * 2**20
"""Pictures that are kept, and characters of their metadata."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A picture that was added or removed."""

    key: int
    id: str = ""
    metadata: Mapping[str, str] | None = None
    """None if it was removed."""

    @property
    def characters(self) -> int:
        """Size of the metadata."""
        return sum(len(name) + len(value) for name, value in (self.metadata or {}).items())


class ChangeLog:
    """One thread adds, all may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: deque[Change] = deque()
        self._characters = 0
        self._position = 0

    @property
    def position(self) -> int:
        """Number of all changes so far."""
        return self._position

    def add(self, changes: Sequence[Change]) -> None:
        """Add the next changes."""
        with self._lock:
            self._changes.extend(changes)
            self._position += len(changes)
            self._characters += sum(change.characters for change in changes)
            while len(self._changes) > MOST or self._characters > MOST_CHARACTERS:
                self._characters -= self._changes.popleft().characters

    def restart(self) -> None:
        """Forget all changes: what knows of earlier ones cannot follow any more."""
        with self._lock:
            self._changes.clear()
            self._position, self._characters = self._position + 1, 0

    def reaches(self, position: int) -> bool:
        """Return whether it has all changes after the first `position`."""
        return position >= self._position - len(self._changes)

    def since(self, position: int) -> tuple[list[Change], int]:
        """Return the changes after the first `position`, and the number of all. Overloaded if it has them no more."""
        with self._lock:
            if not self.reaches(position):
                raise Overloaded("so many pictures are being indexed that the filter cannot follow; try again")
            count = self._position - position
            return [*islice(self._changes, len(self._changes) - count, None)], self._position
