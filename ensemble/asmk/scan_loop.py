"""The loop over the postings that a search reads. Importing this module loads numba.

What bounds the loop is memory: a posting, 18 bytes, is read once, and the processor's own prefetching ends with each
page of 4 KiB, of which a list has a few. So the loop asks for what it will read soon (docs/research/keypoints.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

AHEAD = 256
"""Postings from the one that is read to the one that is asked for: 4.5 KiB. The end of a list asks for the next one."""
READ, KEPT, DATA = 0, 3, 1
"""LLVM's arguments of `prefetch`: to be read, to be kept in all caches, data rather than instructions."""


def _prefetch(_: Any, array: Any, row: Any) -> Any:
    """Ask for the first value of a row of a contiguous array, which need not exist: nothing is read from it."""

    def written(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        made = context.make_array(kind)(context, builder, arguments[0])
        first = context.get_constant(types.uint64, 0)
        place = [arguments[1], *[first] * (kind.ndim - 1)]
        # As numba itself finds an item: from the array's strides it takes a seventh longer.
        address = item_pointer(context, builder, kind, made, place, wraparound=False)
        line, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        wanted = ir.FunctionType(ir.VoidType(), [line, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (line,), wanted)
        builder.call(function, [builder.bitcast(address, line), *(number(one) for one in (READ, KEPT, DATA))])
        return context.get_dummy_value()

    return types.void(array, row), written


item_pointer: Any = cgutils.get_item_pointer
prefetch: Any = intrinsic(_prefetch)


def _add(lists: Any, asked: Any, at: Any, worth: Any, lanes: Any) -> None:
    """Add what a posting is worth to the total of its slot. at: its place, and the row of the word asked for.

    worth: of each number of differing bits, and the totals.
    """
    _, slots, codes = lists
    _, mine, weights = asked
    (place, row), (matches, totals) = at, worth
    apart = np.uint64(0)
    for lane in range(lanes):
        # The number of bits set, as in `bits.differing`; LLVM makes it one instruction.
        bits = codes[place, lane] ^ mine[row, lane]
        bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
        nibbles = np.uint64(0x3333333333333333)
        bits = (bits & nibbles) + ((bits >> np.uint64(2)) & nibbles)
        bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        apart += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
    # Never -0.0, which marks the slots that nothing was added to: `Postings.totals`.
    totals[slots[place]] += matches[apart] * weights[row] + 0.0


add: Any = njit(inline="always")(_add)


def scan_loop(lanes: int) -> Callable[..., None]:
    """Return the loop over codes of so many lanes of 64 bits, to be compiled; `scan.Scan` says what it does."""

    def loop(lists: Any, asked: Any, matches: Any, totals: Any) -> None:
        offsets, slots, codes = lists
        (words, _, _), worth = asked, (matches, totals)
        for row in range(len(words)):
            # Unsigned, or numba would check whether the index is negative.
            place, end = np.uint64(offsets[words[row]]), np.uint64(offsets[words[row] + 1])
            following = np.uint64(offsets[words[min(row + 1, len(words) - 1)]])
            while place < end:
                ahead = place + np.uint64(AHEAD)
                if ahead >= end:
                    ahead += following - end
                prefetch(codes, ahead)
                prefetch(slots, ahead)
                # Four at a time, whose codes are a line of a cache, and written out: LLVM does not always unroll it.
                if place + np.uint64(4) <= end:
                    add(lists, asked, (place, row), worth, lanes)
                    add(lists, asked, (place + np.uint64(1), row), worth, lanes)
                    add(lists, asked, (place + np.uint64(2), row), worth, lanes)
                    add(lists, asked, (place + np.uint64(3), row), worth, lanes)
                    place += np.uint64(4)
                else:
                    add(lists, asked, (place, row), worth, lanes)
                    place += np.uint64(1)

    return loop
