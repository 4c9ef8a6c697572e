"""The loop that compares all patches of two pictures, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.inference.contracts import PATCH_BITS

Codes = NDArray[np.uint64]

LANES = PATCH_BITS // 64
ROW = 16
"""A key is the number of differing bits, then the row of a patch in so many bits, which the store's count has, too."""
FARTHEST_KEY = (PATCH_BITS + 1) << ROW
"""Above all keys."""


class Nearest(Protocol):
    """Finds the patches of two pictures that are each other's nearest."""

    def __call__(self, mine: Codes, theirs: Codes, farthest: int) -> NDArray[np.int64]:
        """Return the pairs that differ in at most `farthest` bits: my row, their row and the differing bits, [3, k].

        mine: [n, LANES]; theirs: [m, LANES]. In the order of my rows. Of equally near patches the first is the nearest.
        """


@cache
def nearest() -> Nearest:
    """Return the loop."""

    def loop(mine: Any, theirs: Any, farthest: Any) -> Any:
        forth, back = np.empty(len(mine), np.int32), np.full(len(theirs), FARTHEST_KEY, np.int32)
        # Lane by lane, so that several patches are compared at once.
        lanes = theirs.T.copy()
        for row in range(len(mine)):
            lowest = np.int32(FARTHEST_KEY)
            for other in range(len(theirs)):
                apart = np.uint64(0)
                for lane in range(LANES):
                    # The number of bits set, as in `bits.differing`; LLVM makes it few instructions.
                    bits = mine[row, lane] ^ lanes[lane, other]
                    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
                    nibbles = np.uint64(0x3333333333333333)
                    bits = (bits & nibbles) + ((bits >> np.uint64(2)) & nibbles)
                    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    apart += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
                # Narrow keys, as AVX2 has no minimum of 64-bit integers.
                key = np.int32(apart << np.uint64(ROW))
                lowest = min(lowest, np.int32(key | np.int32(other)))
                back[other] = min(back[other], np.int32(key | np.int32(row)))
            forth[row] = lowest
        found, count = np.empty((3, len(mine)), np.int64), 0
        for row in range(len(mine)):
            apart, other = forth[row] >> ROW, forth[row] & ((1 << ROW) - 1)
            if apart <= farthest and back[other] & ((1 << ROW) - 1) == row:
                found[0, count], found[1, count], found[2, count] = row, other, apart
                count += 1
        return found[:, :count].copy()

    made: Nearest = compiled(loop, "int64[:, ::1](uint64[:, ::1], uint64[:, ::1], int64)")
    return made
