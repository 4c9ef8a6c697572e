"""The door of the server: how many calls may be open, how many messages are received at a time, and their bytes.

gRPC reads the message of a call before it asks anybody, so 300 pictures of 20 MB that arrive at once would all be in
memory. So every call is handled as a stream, which is read only when we ask for its message. Until then at most
`WINDOW_BYTES` of it are here (`app.server`), and a call that is refused at the door is never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from landseer.ensemble.errors import InvalidInput, Overloaded
from landseer.ensemble.search.held_bytes import HeldBytes
from landseer.ensemble.telemetry.metrics import Metrics

SLOW_S = 0.5
"""A sender who needs longer for a message makes way, so that a few of them do not keep out all others."""
WAIT_S = 1.5
"""A call that is not received by then is refused."""


class Door:
    """Lets calls in. For one event loop."""

    def __init__(self, *, calls: int, receiving: int, slow: int, held: HeldBytes, metrics: Metrics) -> None:
        """Each number is the most at a time. calls: open ones; receiving: messages; slow: those of slow senders beside.

        Each slow sender has a part of his message in memory, so further ones are refused.
        """
        self._most = calls
        self._most_slow = slow
        self._open = 0
        self._receiving = asyncio.Semaphore(receiving)
        self._slow = 0
        self._held = held
        self._shed = metrics.shed
        metrics.open_calls.set_function(lambda: self._open)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be an open call, or raise Overloaded at once."""
        if self._open >= self._most:
            self._shed.labels("any", "calls").inc()
            raise Overloaded(f"{self._open} calls are open, as many as may be; try again later")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @asynccontextmanager
    async def request(self, messages: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        """Receive and parse the only message of a call, and hold its bytes. InvalidInput for none; Overloaded."""
        message = await self._received(messages)
        with self._held.holding(len(message)):
            request = parse(message)
            # A picture is in memory once, not twice, while it is searched for.
            del message
            yield request

    async def _received(self, messages: AsyncIterator[bytes]) -> bytes:
        async with self._turn():
            reading = asyncio.ensure_future(_first(messages))
            try:
                await asyncio.wait({reading}, timeout=SLOW_S)
                if not reading.done():
                    self._check_slow()
            except BaseException:
                reading.cancel()
                raise
        self._slow += 1
        try:
            return await reading
        finally:
            self._slow -= 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Take part in receiving, or raise Overloaded."""
        waiting = asyncio.ensure_future(self._receiving.acquire())
        try:
            await asyncio.wait({waiting}, timeout=WAIT_S)
            if not waiting.done():
                self._refuse(f"so many messages are being received that this one's turn did not come in {WAIT_S:g} s")
            yield
        finally:
            # Done even if this call is cancelled just as its turn comes.
            if waiting.done():
                self._receiving.release()
            waiting.cancel()

    def _check_slow(self) -> None:
        if self._slow >= self._most_slow:
            self._refuse(f"the message did not arrive within {SLOW_S:g} s, nor did those of {self._slow} other calls")

    def _refuse(self, said: str) -> None:
        self._shed.labels("any", "sending").inc()
        raise Overloaded(f"{said}; try again later, or send smaller pictures")


async def _first(messages: AsyncIterator[bytes]) -> bytes:
    async for message in messages:
        return message
    raise InvalidInput("request", "the call has no message; expected one")
