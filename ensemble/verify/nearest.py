"""The loop that compares all patches of two pictures, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.bits import Lanes
from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.inference.contracts import PATCH_BITS

LANES = PATCH_BITS // 64
ROW = 16
"""A key is the number of differing bits, then the row of a patch in so many bits, which the store's count has, too."""
FARTHEST_KEY = (PATCH_BITS + 1) << ROW
"""Above all keys."""


class Nearest(Protocol):
    """Finds the patches of two pictures that are each other's nearest."""

    def __call__(self, mine: Lanes, theirs: Lanes, farthest: int, found: NDArray[np.int64]) -> int:
        """Write the pairs that differ in at most `farthest` bits to `found`, and return their number.

        mine: [LANES, n]; theirs: [LANES, m]; found: [3, n], receives my row, their row and the differing bits, in the
        order of my rows. Of equally near patches the first is the nearest.
        """


@cache
def nearest() -> Nearest:
    """Return the loop."""

    def loop(mine: Any, theirs: Any, farthest: Any, found: Any) -> Any:
        forth = np.full(mine.shape[1], FARTHEST_KEY, np.int32)
        back = np.full(theirs.shape[1], FARTHEST_KEY, np.int32)
        for row in range(mine.shape[1]):
            lowest = forth[row]
            for other in range(theirs.shape[1]):
                apart = np.uint64(0)
                for lane in range(LANES):
                    # The number of bits set, as in `bits.differing`; LLVM does several patches at once.
                    bits = mine[lane, row] ^ theirs[lane, other]
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
        count = 0
        for row in range(mine.shape[1]):
            apart, other = forth[row] >> ROW, forth[row] & ((1 << ROW) - 1)
            if apart <= farthest and back[other] & ((1 << ROW) - 1) == row:
                found[0, count], found[1, count], found[2, count] = row, other, apart
                count += 1
        return count

    made: Nearest = compiled(loop, "int64(uint64[:, ::1], uint64[:, ::1], int64, int64[:, ::1])")
    return made
