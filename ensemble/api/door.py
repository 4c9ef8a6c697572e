"""The door of the server: how many calls may be open, how many messages are received at a time, and their bytes.

gRPC reads the message of a call before it asks anybody, so 300 pictures of 20 MB that arrive at once would all be in
memory. So every call is handled as a stream, which is read only when we ask for its message. Until then at most
`WINDOW_BYTES` of it are here (`app.server`), and a call that is refused at the door is never read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

from landseer.ensemble.errors import InvalidInput, Overloaded, Stopping, Unfinished
from landseer.ensemble.search.held_bytes import HeldBytes
from landseer.ensemble.telemetry.metrics import Metrics

SLOW_S = 0.5
"""A sender who needs longer for a message makes way, so that a few of them do not keep out all others."""
WAIT_S = 1.5
"""A call that is not received by then is refused."""
QUIET_S = 0.05
"""Where no call came for so long, none waits to be refused."""
REFUSING_S = 0.2
"""A server that stops refuses calls for no longer before it closes their connections. Clients pause longer."""
ANSWERING_S = 1.0
"""Calls that are ended because the server stops have so long to send their answers."""


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
        self._closed = False
        self._calls: set[asyncio.Task[Any]] = set()
        """Every call until its answer is sent."""
        self._cut: set[asyncio.Task[Any]] = set()
        self._last_came = -QUIET_S
        self._held = held
        self._shed = metrics.shed
        metrics.open_calls.set_function(lambda: self._open)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be an open call, or raise Overloaded or Stopping at once. A call that `finish` ends raises Unfinished."""
        call = self._this_call()
        if self._closed:
            raise Stopping("the server is stopping and takes no more calls; nothing was done: try again")
        if self._open >= self._most:
            self._shed.labels("any", "calls").inc()
            raise Overloaded(f"{self._open} calls are open, as many as may be; try again later")
        self._open += 1
        try:
            yield
        except asyncio.CancelledError:
            if call not in self._cut:
                raise
            why = "the server stopped before this call was done; try again: a write may have been applied, and may not"
            raise Unfinished(why) from None
        finally:
            self._open -= 1

    def close(self) -> None:
        """Let no more calls in: from now on each is refused with Stopping."""
        self._closed = True

    async def quiet(self, within_s: float) -> None:
        """Wait until no call has come for a moment, for REFUSING_S and `within_s` seconds at most."""
        end = time.monotonic() + min(REFUSING_S, within_s)
        while time.monotonic() < min(end, self._last_came + QUIET_S):
            await asyncio.sleep(QUIET_S / 5)

    @property
    def busy(self) -> bool:
        """Whether a call is inside."""
        return self._open > 0

    async def finish(self, grace_s: float) -> None:
        """Wait for the calls inside. Those that are not done after `grace_s` seconds are ended, with Unfinished."""
        self._cut = await _unfinished(self._calls, grace_s)
        for call in self._cut:
            call.cancel()
        await _unfinished(self._calls, ANSWERING_S)

    def _this_call(self) -> asyncio.Task[Any] | None:
        """Return the task that handles this call, from now on until its answer is sent one of `_calls`."""
        self._last_came = time.monotonic()
        call = asyncio.current_task()
        if call is not None and call not in self._calls:
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return call

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


async def _unfinished(calls: set[asyncio.Task[Any]], within_s: float) -> set[asyncio.Task[Any]]:
    """Wait for calls, and return those that did not end within so many seconds."""
    return (await asyncio.wait(set(calls), timeout=within_s))[1] if calls else set()


@asynccontextmanager
async def stream(messages: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Receive the messages of a call, and free the last one, too.

    gRPC's iterator holds on to what it gave last until it is closed, or until the next garbage collection after the
    call: 40 searches by pictures of 19 MB left 720 MB behind.
    """
    # gRPC gives an asynchronous generator, and says that it is an iterator.
    async with aclosing(cast("AsyncGenerator[Any, None]", aiter(messages))) as received:
        yield received


async def _first(messages: AsyncIterator[bytes]) -> bytes:
    async with stream(messages) as received:
        async for message in received:
            return cast("bytes", message)
    raise InvalidInput("request", "the call has no message; expected one")
