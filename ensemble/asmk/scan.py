"""The loops over postings, compiled by numba for this processor when they are first asked for.

A list of postings is [offsets[c], offsets[c + 1]) of `slots` and `codes`, for word c. The machine code is kept beside
this file, or in the user's cache if that cannot be written; where neither can, every process compiles anew. The loops
hold no lock of Python, so threads run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.uint32]
Slots = NDArray[np.uint16]
Codes = NDArray[np.uint64]
Floats = NDArray[np.float64]
Words = NDArray[np.int64]

_LISTS = "uint32[::1], uint16[::1], uint64[:, ::1]"
_SCAN = f"void({_LISTS}, int64[::1], uint64[:, ::1], float64[::1], float64[::1], float64[::1])"
_APPEND = f"void({_LISTS}, int32[::1], uint32[::1], uint16[::1], uint64[:, ::1])"
_COUNT = "void(uint32[::1], uint16[::1], boolean[::1], int64[::1])"


class Scan(Protocol):
    """Adds matches[h] * weights[i] to totals[slot] for each posting of words[i] whose code differs in h bits."""

    def __call__(
        self,
        offsets: Offsets,
        slots: Slots,
        codes: Codes,
        words: Words,
        asked: Codes,
        matches: Floats,
        weights: Floats,
        totals: Floats,
    ) -> None:
        """codes: [P, L] of the postings, asked: [W, L] of the words [W]; matches: [64 L + 1] or more."""


class Append(Protocol):
    """Copies the postings of pictures with a new slot, -1 for the others, to the places from `ends` [K] on, moved on."""

    def __call__(
        self,
        offsets: Offsets,
        slots: Slots,
        codes: Codes,
        renamed: NDArray[np.int32],
        ends: Offsets,
        new_slots: Slots,
        new_codes: Codes,
    ) -> None:
        """renamed: [n], the new slots."""


class Count(Protocol):
    """Writes the number of living pictures [n] with each word to counts [K]."""

    def __call__(self, offsets: Offsets, slots: Slots, alive: NDArray[np.bool_], counts: Words) -> None:
        """counts is overwritten."""


@lru_cache(maxsize=None)
def scan(lanes: int) -> Scan:
    """Return the scan of codes of so many lanes of 64 bits. With 0 it reads no codes: all differ in no bit."""

    def loop(
        offsets: Any, slots: Any, codes: Any, words: Any, asked: Any, matches: Any, weights: Any, totals: Any
    ) -> None:
        for row in range(len(words)):
            word, weight = words[row], weights[row]
            # Unsigned, as numba would check each index for being negative.
            for place in range(np.uint64(offsets[word]), np.uint64(offsets[word + 1])):
                apart = np.uint64(0)
                for lane in range(lanes):
                    # The number of bits set, as in `bits.differing`; LLVM makes it one instruction.
                    bits = codes[place, lane] ^ asked[row, lane]
                    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
                    fours = np.uint64(0x3333333333333333)
                    bits = (bits & fours) + ((bits >> np.uint64(2)) & fours)
                    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    apart += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
                # Not -0.0, which marks pictures without a match: `Postings.score`.
                totals[slots[place]] += matches[apart] * weight + 0.0

    compiled: Scan = _compiled(loop, _SCAN)
    return compiled


@lru_cache(maxsize=1)
def append() -> Append:
    """Return the loop that merges lists."""

    def loop(
        offsets: Any, slots: Any, codes: Any, renamed: Any, ends: Any, new_slots: Any, new_codes: Any
    ) -> None:
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

    compiled: Append = _compiled(loop, _APPEND)
    return compiled


@lru_cache(maxsize=1)
def count() -> Count:
    """Return the loop that counts living pictures by word."""

    def loop(offsets: Any, slots: Any, alive: Any, counts: Any) -> None:
        for word in range(len(counts)):
            living = 0
            for place in range(np.uint64(offsets[word]), np.uint64(offsets[word + 1])):
                living += alive[slots[place]]
            counts[word] = living

    compiled: Count = _compiled(loop, _COUNT)
    return compiled


def prepare(lanes: int) -> None:
    """Compile everything now, rather than in the first search: about 5 s, or 0.2 s if it was kept."""
    for made in (scan(lanes), scan(0), append(), count()):
        assert made


def _compiled(loop: Callable[..., None], signature: str) -> Any:
    import numba

    try:
        return numba.njit([signature], nogil=True, cache=True)(loop)
    except (RuntimeError, OSError):
        # No folder for the machine code can be written, or it is full.
        return numba.njit([signature], nogil=True)(loop)
