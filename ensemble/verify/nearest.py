"""The loop that compares all patches of two pictures, compiled when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.bits import Lanes
from landseer.ensemble.asmk.compiled import compiled
from landseer.ensemble.inference.contracts import PATCH_BITS

Keys = NDArray[np.int64]

LANES = PATCH_BITS // 64
ROW = 16
"""A key is the number of differing bits, then the row of a patch in so many bits, which the store's count has, too."""
FARTHEST_KEY = (PATCH_BITS + 1) << ROW
"""Above all keys."""


class Nearest(Protocol):
    """Finds the nearest of the other picture's patches for each patch."""

    def __call__(self, mine: Lanes, theirs: Lanes, forth: Keys, back: Keys) -> None:
        """Write the lowest key of each of my patches [n] to `forth`, and of each of theirs [m] to `back`.

        mine: [LANES, n]; theirs: [LANES, m]. Keys that are lower already stay.
        """


@cache
def nearest() -> Nearest:
    """Return the loop."""

    def loop(mine: Any, theirs: Any, forth: Any, back: Any) -> None:
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
                key = np.int64(apart) << np.int64(ROW)
                lowest = min(lowest, key | other)
                back[other] = min(back[other], key | row)
            forth[row] = lowest

    made: Nearest = compiled(loop, "void(uint64[:, ::1], uint64[:, ::1], int64[::1], int64[::1])")
    return made
