"""One graph compiled for several sets of outputs, so that only requested outputs are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Variants(Generic[T]):
    """The compiled graphs, by their outputs.

    A set is compiled when it is first requested. After `most` sets, the smallest graph that has the outputs is used:
    callers choose the sets, and must not be able to cause endless compilations.
    """

    def __init__(self, make: Callable[[frozenset[str]], T], everything: frozenset[str], *, most: int = 4) -> None:
        self._make = make
        self._everything = everything
        self._most = most
        self._made: dict[frozenset[str], T] = {}

    def __len__(self) -> int:
        return len(self._made)

    def add(self, outputs: frozenset[str]) -> T:
        """Compile for exactly these outputs, unless already compiled."""
        if outputs not in self._made:
            self._made[outputs] = self._make(outputs)
        return self._made[outputs]

    def get(self, outputs: frozenset[str]) -> T:
        """Return a graph that has at least these outputs."""
        if outputs in self._made or len(self._made) < self._most:
            return self.add(outputs)
        fitting = [known for known in self._made if known >= outputs]
        return self._made[min(fitting, key=len)] if fitting else self.add(self._everything)
