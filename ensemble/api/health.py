"""The gRPC health protocol, with one status for all our services.

We do not use the servicer of grpcio-health-checking (1.85): when one of two watchers disconnects, the other gets no
more updates, and its watchers block a server that is shutting down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICES = ("", "landseer.v1.SearchService", "landseer.v1.IndexService")
"""Service names in health checks; the empty name is the server as a whole."""
_Answer = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Starts as NOT_SERVING. Once closed it stays NOT_SERVING."""

    def __init__(self) -> None:
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()
        self.watches = 0
        """Open calls of `Watch`."""

    @property
    def serving(self) -> bool:
        """Whether requests can be answered."""
        return self._serving

    def set(self, serving: bool) -> None:
        """Set the status and notify watchers."""
        serving = serving and not self._closed
        if serving != self._serving:
            self._serving = serving
            self._wake()

    def close(self) -> None:
        """Switch to NOT_SERVING for good and end the watches after notifying them."""
        self._closed = True
        self.set(False)
        self._wake()

    async def wait_until(self, serving: bool) -> None:
        """Return when the status is `serving`."""
        while self._serving != serving:
            await self._changed.wait()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer with the current status. NOT_FOUND for an unknown service."""
        if request.service not in SERVICES:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"got service {request.service[:100]!r}; expected one of {', '.join(filter(None, SERVICES))}, or none",
            )
        return _Answer(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        """Send the current status, then every change."""
        sent = None
        self.watches += 1
        try:
            while True:
                changed, closed, status = self._changed, self._closed, self._status(request.service)
                if status != sent:
                    yield _Answer(status=status)
                sent = status
                if closed:
                    return
                await changed.wait()
        finally:
            self.watches -= 1

    def _status(self, service: str) -> int:
        if service not in SERVICES:
            return int(_Answer.SERVICE_UNKNOWN)
        return int(_Answer.SERVING if self._serving else _Answer.NOT_SERVING)

    def _wake(self) -> None:
        """Wake the watchers. Each change has its own event, so that no watcher can miss one."""
        self._changed.set()
        self._changed = asyncio.Event()
