"""Residuals packed to one bit per value, and Hamming distances.

numpy has `bitwise_count` only from 2.0 on. Adding neighbouring bits in 64-bit lanes takes 0.08 ms for 15,000 codes of
128 bits, a lookup table of 16-bit words 0.45 ms (one thread of an EPYC).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]
Lane = NDArray[np.uint64]
Lanes = NDArray[np.uint64]

_ONE, _TWO, _FOUR, _TOP = (np.uint64(shift) for shift in (1, 2, 4, 56))
_PAIRS, _NIBBLES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_BYTES, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def binarise(vectors: NDArray[np.floating[Any]]) -> Packed:
    """Pack the signs of vectors [n, D] to uint8 [n, ceil(D / 8)], zero-padded: bit d is set if value d is above 0.

    The first value is the most significant bit of the first byte, as in the code of D2R and, read as big-endian
    words, of the `asmk` package.
    """
    return np.packbits(vectors > 0, axis=1)


def lanes(packed: Packed) -> Lanes:
    """Return packed bits [n, B] as uint64 [L, n], L = ceil(B / 8), zero-padded, so that padding never differs.

    This layout, lane by lane, is compared in a third of the time of one code after the other.
    """
    wide = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    wide[:, : packed.shape[1]] = packed
    return np.ascontiguousarray(wide.view(np.uint64).T)


def hamming(these: Lanes, those: Lanes) -> NDArray[np.int64]:
    """Return the Hamming distances of codes [L, n] and codes [L, n], pair by pair: int64 [n]."""
    return differing([this ^ that for this, that in zip(these, those, strict=True)], these.shape[1])


def differing(apart: Sequence[Lane], count: int) -> NDArray[np.int64]:
    """Return the number of bits set in each of `count` codes, given as lanes [count]: int64 [count].

    Overwrites the lanes.
    """
    total = np.zeros(count, np.uint64)
    for lane in apart:
        bits = lane
        spare = bits >> _ONE
        spare &= _PAIRS
        bits -= spare  # counts of 2 bits
        np.right_shift(bits, _TWO, out=spare)
        spare &= _NIBBLES
        bits &= _NIBBLES
        bits += spare  # of 4
        np.right_shift(bits, _FOUR, out=spare)
        bits += spare
        bits &= _BYTES  # of 8
        # The multiplication adds up all bytes in the top one.
        bits *= _SUM
        bits >>= _TOP
        total += bits
    return total.view(np.int64)
