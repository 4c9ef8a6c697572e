"""Bytes of pictures in flight: encoded pictures that were received and not yet answered, bounded together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from landseer.ensemble.errors import Overloaded
from landseer.ensemble.telemetry.metrics import Metrics

SMALL_BYTES = 2**16
"""A request as small as this has no picture worth counting: searches by id are let in whatever is held."""


class HeldBytes:
    """Counts them. A single message is refused when too many are held. Streams wait before they are read further, from
    half as many on, so that they leave room for searches."""

    def __init__(self, *, most: int, metrics: Metrics) -> None:
        self._most = most
        self._held = 0
        self.released = 0
        """Bytes given back since the start."""
        self._fewer = asyncio.Event()
        self._shed = metrics.shed.labels("any", "bytes")
        metrics.bytes_in_flight.set_function(lambda: self._held)

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Hold `count` bytes, or raise Overloaded. Where nothing is held, any number may be."""
        if self._held and count > SMALL_BYTES and self._held + count > self._most:
            self._shed.inc()
            raise Overloaded(
                f"requests of {self._held:,} bytes are being answered, and {count:,} more would exceed "
                f"{self._most:,}; try again later"
            )
        self.hold(count)
        try:
            yield
        finally:
            self.release(count)

    def hold(self, count: int) -> None:
        """Hold `count` bytes until `release`, whatever is held already."""
        self._held += count

    def release(self, count: int) -> None:
        """Give them back, and wake whoever waits."""
        self._held -= count
        self.released += count
        self._fewer.set()

    @property
    def full(self) -> bool:
        """Whether streams should not be read."""
        return self._held >= self._most / 2

    async def room(self) -> None:
        """Wait until streams may be read."""
        while self.full:
            self._fewer.clear()
            await self._fewer.wait()
