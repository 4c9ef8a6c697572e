"""A TCP proxy that can freeze the connections it has, as a firewall does that forgot them: no data, no end."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class FreezingProxy:
    """Forwards connections to `target`, HOST:PORT. `freeze()` makes those of the moment silent; later ones work."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.address = ""
        self.connections = 0
        """Connections accepted so far."""
        self.held = False
        """Whether new connections are silent from their start."""
        self._running: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FreezingProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Silence the connections there are, in both directions."""
        for running in self._running:
            running.clear()
        self._running.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        running = asyncio.Event()
        if not self.held:
            running.set()
            self._running.add(running)
        onward = await asyncio.open_connection(self._host, self._port)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(_pump(reader, onward[1], running), _pump(onward[0], writer, running))
        finally:
            for end in (writer, onward[1]):
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, running: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await running.wait()
            writer.write(data)
            await writer.drain()
    writer.close()
