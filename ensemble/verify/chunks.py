"""Verify candidates in small chunks on threads, so that searches take turns.

The event loop is not blocked, and the remaining chunks are dropped when the deadline passes or the caller cancels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.workers import Workers

T = TypeVar("T")
CHUNK = 25
"""Candidates verified per task."""


async def in_chunks(
    workers: Workers, verify: Callable[[Sequence[int]], list[tuple[int, T]]], keys: NDArray[np.int64], *, threads: int
) -> dict[int, T]:
    """Return what `verify` returns for chunks of keys [C], by key. Overloaded.

    A search has at most one chunk queued for each of the threads.
    """
    # Lanes share them, so that none waits for another that has the slower pictures.
    chunks = (keys[first : first + CHUNK].tolist() for first in range(0, len(keys), CHUNK))

    async def lane() -> list[tuple[int, T]]:
        return [pair for chunk in chunks for pair in await workers.run(verify, chunk)]

    found = await asyncio.gather(*(lane() for _ in range(threads)))
    return dict(pair for some in found for pair in some)
