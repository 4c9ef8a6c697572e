"""A TCP proxy that can freeze, lose its connections silently, or deliver slowly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.server import Startable

CHUNK = 64 * 2**10
JOIN_S = 5.0


class Proxy(Startable):
    """Forwards connections from a port of its own to `upstream`, HOST:PORT, on a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self.address = f"{LOOPBACK}:{free_port()}"
        """HOST:PORT for callers."""
        self.rate: float | None = None
        """Bytes per second that each connection delivers to its caller; None for all at once."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="landseer-proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._lost = 0
        self._accepted = 0
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """Close all connections. Does no harm if it was never started."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(JOIN_S)
            self._loop.close()

    def freeze(self) -> None:
        """Forward nothing more, in no connection, old or new, and close none."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Forward again, also what was sent meanwhile."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def lose(self) -> None:
        """Forward nothing more in the connections of now, for good, and close none; new ones work."""
        self._lost = self._accepted

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(JOIN_S)

    async def _listen(self) -> None:
        self._flowing.set()
        host, _, port = self.address.rpartition(":")
        self._server = await asyncio.start_server(self._accept, host, int(port), limit=CHUNK)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        number = self._accepted
        try:
            await self._flowing.wait()
            further_reader, further_writer = await asyncio.open_connection(self._host, self._port, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        for pump in (self._pump(reader, further_writer, number), self._pump(further_reader, writer, number, slow=True)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, slow: bool = False
    ) -> None:
        """Forward in one direction until either side closes."""
        try:
            while data := await reader.read(self._size(slow=slow)):
                await self._flowing.wait()
                if number <= self._lost:
                    await asyncio.Event().wait()
                if slow and self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.transport.abort()

    def _size(self, *, slow: bool) -> int:
        return CHUNK if self.rate is None or not slow else max(1, int(self.rate / 10))
