"""Whether a history of calls to one key is linearisable: as if each had happened at one instant of its duration.

The search of Wing and Gong (1993), with the memory of visited states of Lowe (2017). A key is a register: a put writes
its value, a deletion writes None, a read returns the value. PyPI has no kept library for it in November 2026.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Value = int | None
"""What a key holds; None for nothing."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call to one key."""

    kind: Literal["write", "delete", "read"]
    value: Value = None
    """What was written or read; for a deletion, None."""
    began: float
    ended: float
    """When the answer came. Without an answer, when the change can have happened at the latest."""
    answered: bool = True
    """Whether there was an answer. A change without one may have happened, or never."""
    found: bool | None = None
    """For a deletion, whether there was something to delete; None if unknown."""


def is_linearisable(operations: Iterable[Operation], *, first: Value = None) -> bool:
    """Return whether some order that respects time explains every answer. first: what the key held before."""
    history = sorted(
        (one for one in operations if one.answered or one.kind != "read"), key=lambda operation: operation.began
    )
    everyone = (1 << len(history)) - 1
    stack, visited = [(0, first)], {(0, first)}
    while stack:
        done, value = stack.pop()
        if done == everyone:
            return True
        for place in _next(history, everyone & ~done):
            for after in _outcomes(history[place], value):
                state = (done | 1 << place, after)
                if state not in visited:
                    visited.add(state)
                    stack.append(state)
    return False


def _next(history: Sequence[Operation], left: int) -> list[int]:
    """Return the places of those that may be next: none of the others had ended before they began."""
    earliest, places = math.inf, []
    while left:
        place = (left & -left).bit_length() - 1
        left &= left - 1
        if history[place].began > earliest:
            break
        places.append(place)
        earliest = min(earliest, history[place].ended)
    return places


def _outcomes(operation: Operation, value: Value) -> Iterator[Value]:
    """Yield what a key can hold after an operation, from what it held before; nothing if the answer does not fit."""
    if not operation.answered:
        yield value
    if operation.kind == "read":
        if operation.value == value:
            yield value
    elif operation.kind == "write":
        yield operation.value
    elif operation.found in (None, value is not None):
        yield None


def stale_reads(changes: Sequence[Operation], reads: Sequence[Operation], *, first: Value = None) -> list[Operation]:
    """Return the reads that no change overlaps, and that do not return what a change before them left.

    This is the promise of searches, which is weaker than a register's (Lamport's safe register): while a picture is
    replaced, a search may miss it.
    """
    return [read for read in reads if not _explained(changes, read, first)]


def _explained(changes: Sequence[Operation], read: Operation, first: Value) -> bool:
    """Return whether a change overlaps a read, or one of the last changes before it left what it returns."""
    if any(one.began <= read.ended and one.ended >= read.began for one in changes):
        return True
    before = [one for one in changes if one.ended < read.began]
    latest = max((one.began for one in before if one.answered), default=-math.inf)
    left = {one.value for one in before if one.ended >= latest}
    return read.value in (left if latest > -math.inf else left | {first})
