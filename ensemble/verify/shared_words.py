"""The loop that compares the keypoints of two pictures that share a word, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.keypoints.compact import BITS

Places = NDArray[np.int64]
Codes = NDArray[np.uint64]

LANES = BITS // 64

Table: TypeAlias = tuple[NDArray[np.int32], Places, Places, Codes]
"""Places, begins, rows and codes of a `WordTable`."""


class Compare(Protocol):
    """Compares keypoints that share a word."""

    def __call__(self, table: Table, words: Places, codes: Codes, farthest: int) -> Places:
        """Return the pairs that differ in at most `farthest` bits: my row, their row and the differing bits, [3, m].

        words: [n], of the other picture; codes: [n, LANES], its bits. In the order of their rows.
        """


@cache
def compare() -> Compare:
    """Return the loop."""

    def loop(table: Any, words: Any, codes: Any, farthest: Any) -> Any:
        places, begins, rows, mine = table
        room = 0
        for word in words:
            room += begins[places[word] + 1] - begins[places[word]]
        found, count = np.empty((3, room), np.int64), 0
        for other in range(len(words)):
            entry = places[words[other]]
            for place in range(begins[entry], begins[entry + 1]):
                apart = np.uint64(0)
                for lane in range(LANES):
                    # The number of bits set, as in `bits.differing`; LLVM makes it one instruction.
                    bits = mine[place, lane] ^ codes[other, lane]
                    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
                    nibbles = np.uint64(0x3333333333333333)
                    bits = (bits & nibbles) + ((bits >> np.uint64(2)) & nibbles)
                    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    apart += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
                if np.int64(apart) <= farthest:
                    found[0, count], found[1, count], found[2, count] = rows[place], other, np.int64(apart)
                    count += 1
        return found[:, :count].copy()

    table = "Tuple((int32[::1], int64[::1], int64[::1], uint64[:, ::1]))"
    made: Compare = compiled(loop, f"int64[:, ::1]({table}, int64[::1], uint64[:, ::1], int64)")
    return made
