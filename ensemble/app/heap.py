"""How the C library's heap keeps what was freed: pictures come and go, and memory should go with them."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h."""
LARGE_BYTES = 4 * 2**20
KEPT_BYTES = 64 * 2**20
"""That a heap keeps at its end, until it is trimmed."""
TRIM_S = 5.0
TRIM_BYTES = 64 * 2**20
"""Worth of pictures after which the heaps are trimmed."""


def give_back_large_blocks() -> None:
    """Let malloc take blocks of some megabytes from the system, and return them when they are freed.

    glibc does so at first, but raises the size to up to 32 MiB with each such block that is freed, and from then on
    keeps pictures on its heaps. Does nothing with another C library.

    Smaller blocks stay on the heaps: to find the keypoints of a picture takes tens of MiB, and to get these from the
    system anew, page by page, took 10 ms of the 65 of a query of 480 px (5,000 page faults; none now).
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    except (AttributeError, OSError) as error:
        log.debug("no mallopt: %s", error)


async def keep_trimmed(released: Callable[[], int]) -> None:
    """Return free pages to the system from time to time, after many bytes were released; until cancelled.

    gRPC receives a picture in small blocks, and those of several calls lie side by side on the heaps: without this,
    1.2 GB stayed resident after 60 pictures of 19 MB.
    """
    before = released()
    while True:
        await asyncio.sleep(TRIM_S)
        now = released()
        if now - before >= TRIM_BYTES:
            before = now
            await asyncio.to_thread(_trim)


def _trim() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError) as error:
        log.debug("no malloc_trim: %s", error)
