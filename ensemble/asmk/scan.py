"""The loops over postings, compiled when they are first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled

Offsets = NDArray[np.uint32]
Slots = NDArray[np.uint16]
Codes = NDArray[np.uint64]
Floats = NDArray[np.float64]
Words = NDArray[np.int64]

Lists: TypeAlias = tuple[Offsets, Slots, Codes]
"""Offsets [K + 1], slots [P] and codes [P, L]: the postings of word c are [offsets[c], offsets[c + 1])."""
Asked: TypeAlias = tuple[Words, Codes, Floats]
"""Words [W] that are asked for, their codes [W, L] and weights [W]."""

_LISTS = "Tuple((uint32[::1], uint16[::1], uint64[:, ::1]))"
_ASKED = "Tuple((int64[::1], uint64[:, ::1], float64[::1]))"


class Scan(Protocol):
    """Adds up what the postings of some words are worth."""

    def __call__(self, lists: Lists, asked: Asked, matches: Floats, totals: Floats) -> None:
        """Add, word after word, matches[h] times the word's weight to the total of the slot of each of its postings.

        matches: [64 L + 1] or shorter, for each number h of differing bits that there can be; totals: of each slot.
        """


class Append(Protocol):
    """Merges lists."""

    def __call__(self, lists: Lists, renamed: NDArray[np.int32], ends: Offsets, merged: tuple[Slots, Codes]) -> None:
        """Copy each word's postings to its place in `ends` [K], which moves on.

        renamed: the new slot of each slot, -1 to drop it.
        """


class Count(Protocol):
    """Counts living pictures."""

    def __call__(self, lists: Lists, alive: NDArray[np.bool_], counts: Words) -> None:
        """Write the number of living slots with each word to counts [K]."""


class Lead(Protocol):
    """Finds the best pictures."""

    def __call__(
        self, totals: Floats, allowed: NDArray[np.bool_], roots: tuple[float, Floats], best: Floats, found: Words
    ) -> int:
        """Write the slots of the highest scores, and of all that tie with the last of them, to found; return how many.

        totals: [n], -0.0 for slots that share no word, which are left out, as those not allowed [n] are. They become
        scores: each is divided by the query's root times that of the slot, [n]. best: [k], as many are the highest.
        found: [n], in the order of the slots.
        """


@cache
def scan(lanes: int) -> Scan:
    """Return the scan of codes of so many lanes of 64 bits. With 0 it reads no codes: none differ in any bit."""

    from landseer.ensemble.asmk.scan_loop import scan_loop

    made: Scan = compiled(scan_loop(lanes), f"void({_LISTS}, {_ASKED}, float64[::1], float64[::1])")
    return made


@cache
def append() -> Append:
    """Return the loop that merges lists."""

    def loop(lists: Any, renamed: Any, ends: Any, merged: Any) -> None:
        offsets, slots, codes = lists
        new_slots, new_codes = merged
        for word in range(len(ends)):
            end = np.uint64(ends[word])
            for place in range(np.uint64(offsets[word]), np.uint64(offsets[word + 1])):
                slot = renamed[slots[place]]
                if slot >= 0:
                    new_slots[end] = slot
                    for lane in range(codes.shape[1]):
                        new_codes[end, lane] = codes[place, lane]
                    end += np.uint64(1)
            ends[word] = end

    signature = f"void({_LISTS}, int32[::1], uint32[::1], Tuple((uint16[::1], uint64[:, ::1])))"
    made: Append = compiled(loop, signature)
    return made


@cache
def count() -> Count:
    """Return the loop that counts living pictures by word."""

    def loop(lists: Any, alive: Any, counts: Any) -> None:
        offsets, slots, _ = lists
        for word in range(len(counts)):
            living = 0
            for place in range(np.uint64(offsets[word]), np.uint64(offsets[word + 1])):
                living += alive[slots[place]]
            counts[word] = living

    made: Count = compiled(loop, f"void({_LISTS}, boolean[::1], int64[::1])")
    return made


@cache
def lead() -> Lead:
    """Return the loop that finds the best pictures."""

    def loop(totals: Any, allowed: Any, roots: Any, best: Any, found: Any) -> Any:
        mine, theirs = roots
        k, held, leading = len(best), 0, 0
        for slot in range(len(totals)):
            if k == 0 or not allowed[slot] or (totals[slot] == 0.0 and np.signbit(totals[slot])):
                continue
            score = totals[slot] / (mine * theirs[slot])
            totals[slot] = score
            # A heap whose root is the lowest of the k highest so far.
            place = 0
            if held < k:
                place, held = held, held + 1
                while place > 0 and best[(place - 1) // 2] > score:
                    best[place] = best[(place - 1) // 2]
                    place = (place - 1) // 2
                best[place] = score
            elif score > best[0]:
                while 2 * place + 1 < k:
                    child = 2 * place + 1
                    if child + 1 < k and best[child + 1] < best[child]:
                        child += 1
                    if best[child] >= score:
                        break
                    best[place] = best[child]
                    place = child
                best[place] = score
            # Those that are too low by now are passed over below.
            if held < k or score >= best[0]:
                found[leading] = slot
                leading += 1
        kept = 0
        for place in range(leading):
            if held < k or totals[found[place]] >= best[0]:
                found[kept] = found[place]
                kept += 1
        return kept

    signature = "int64(float64[::1], boolean[::1], Tuple((float64, float64[::1])), float64[::1], int64[::1])"
    made: Lead = compiled(loop, signature)
    return made


def prepare(lanes: int) -> None:
    """Load or compile all loops now, rather than in the first search."""
    scan(lanes), scan(0), append(), count(), lead()
