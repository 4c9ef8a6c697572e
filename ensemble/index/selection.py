"""Which pictures a search may return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Selecting(Protocol):
    """Which pictures a search may return, known when it begins."""

    def now(self) -> Selection:
        """Return them."""

    def has(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each of keys [n] is allowed now: [n]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """A set of keys, a byte for each up to the largest: 1 MB a million changes, as keys number the store's changes."""

    allowed: NDArray[np.bool_]
    """[K] by key; keys from K on are not allowed."""

    @classmethod
    def of(cls, keys: NDArray[np.int64]) -> Selection:
        """Return the selection of these keys, 0 or more each, in any order."""
        allowed = np.zeros(int(keys.max(initial=-1)) + 1, np.bool_)
        allowed[keys] = True
        return cls(allowed=allowed)

    def now(self) -> Selection:
        """Return itself."""
        return self

    def changed(self, added: NDArray[np.int64], removed: NDArray[np.int64]) -> Selection:
        """Return the selection with some keys more, and then without others."""
        if not len(added) and not self.has(removed).any():
            return self
        allowed = np.zeros(max(len(self.allowed), int(added.max(initial=-1)) + 1), np.bool_)
        allowed[: len(self.allowed)] = self.allowed
        allowed[added] = True
        allowed[removed[removed < len(allowed)]] = False
        return Selection(allowed=allowed)

    def __contains__(self, key: int) -> bool:
        return 0 <= key < len(self.allowed) and bool(self.allowed[key])

    def has(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each of keys [n] is allowed: [n]. Keys below 0 are not."""
        inside = (keys >= 0) & (keys < len(self.allowed))
        found = np.zeros(len(keys), np.bool_)
        found[inside] = self.allowed[keys[inside]]
        return found
