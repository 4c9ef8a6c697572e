"""Stands between Triton's gRPC front end and its callers, and never cancels an inference.

    orchestrators ── relay ── Triton

Triton 2.51, which pip installs, crashes now and then when an inference is cancelled or its caller is gone
(docs/triton.md). So Triton's only caller is the relay, which outlives the orchestrators: when one of them gives up or
is killed, the relay still waits for Triton's answer and drops it. Messages pass unread. No deadline is set either,
because gRPC would cancel when it passes; our backend drops what is late by a parameter of the request.

It runs as a process of its own, `python -m landseer.ops.run.relay`, which the launcher starts and ends with Triton, or
in a container beside Triton's (ops/deploy).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc
from tritonclient.grpc import service_pb2

from landseer.client import keepalive
from landseer.ensemble.app.heap import give_back_large_blocks
from landseer.ensemble.inference.contracts import RELAYED

SERVICE = "/inference.GRPCInferenceService/"
INFER = "ModelInfer"
METADATA = "ServerMetadata"
ASKED = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
)
"""Questions, which may be cancelled. What would change the server does not pass."""
HEALTH = "/grpc.health.v1.Health/Check"
"""Asked by Kubernetes: so the relay is ready when Triton is."""
MOST = 512
"""Inferences with Triton at a time, abandoned ones included: they keep their pictures, about 1 MB each."""
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_OWN = ("grpc-", "user-agent", "content-type", "te")
"""Starts of the names of headers that belong to a connection, and are not passed on."""

Headers = tuple[tuple[str, str | bytes], ...]
Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class Relay(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Passes calls to the Triton at `address`, host:port. Create it inside a running event loop."""

    def __init__(self, address: str) -> None:
        self._channel: Any = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._running: set[asyncio.Future[bytes]] = set()
        self._handlers: dict[str, Handler] = {HEALTH: self._asking(HEALTH)}
        self._handlers |= {SERVICE + name: self._asking(SERVICE + name) for name in ASKED}
        self._handlers |= {SERVICE + INFER: self._infer, SERVICE + METADATA: self._metadata}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a method; None for one that does not pass."""
        handler = self._handlers.get(str(handler_call_details.method))
        return None if handler is None else grpc.unary_unary_rpc_method_handler(handler)

    async def close(self) -> None:
        """Close the connection, which cuts off what still runs."""
        await self._channel.close()

    async def _infer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if len(self._running) >= MOST:
            said = f"{MOST} inferences are with Triton already, which does not answer; try again later"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
        running = asyncio.ensure_future(self._call(SERVICE + INFER, request, _passed(context)))
        self._running.add(running)
        running.add_done_callback(self._ended)
        return await _answered(asyncio.shield(running), context)

    def _ended(self, running: asyncio.Future[bytes]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # retrieved, as its caller may have gone

    async def _metadata(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Add to Triton's answer that there is a relay, so that orchestrators know."""
        answer = service_pb2.ServerMetadataResponse.FromString(
            await _answered(self._call(SERVICE + METADATA, request, _passed(context)), context)
        )
        answer.extensions.append(RELAYED)
        return cast(bytes, answer.SerializeToString())

    def _asking(self, method: str) -> Handler:
        async def ask(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return await _answered(self._call(method, request, _passed(context)), context)

        return ask

    async def _call(self, method: str, request: bytes, headers: Headers) -> bytes:
        return cast(bytes, await self._channel.unary_unary(method)(request, metadata=headers))


def _passed(context: grpc.aio.ServicerContext[bytes, bytes]) -> Headers:
    """Return the caller's headers, such as `traceparent`."""
    return tuple((name, value) for name, value in context.invocation_metadata() or () if not name.startswith(_OWN))


async def _answered(call: Awaitable[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Return Triton's answer, or fail as Triton did."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        await context.abort(error.code(), error.details() or "")
        raise AssertionError("unreachable: abort raises") from error


async def serve(listen: str, triton: str, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Relay from the address `listen` to `triton` until `stop` is set. RuntimeError if the port is taken."""
    # While Triton hangs, orchestrators hear nothing and ping: without these options they would be cut off for it.
    server, relay = grpc.aio.server(options=[*_OPTIONS, *keepalive.server_options()]), Relay(triton)
    server.add_generic_rpc_handlers((relay,))
    server.add_insecure_port(listen)
    await server.start()
    ready()
    await stop.wait()
    await server.stop(None)
    await relay.close()


async def _main(listen: str, triton: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(listen, triton, lambda: None, stop)


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="landseer.ops.run.relay", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="address for the orchestrators")
    parser.add_argument("--triton", required=True, metavar="HOST:PORT", help="gRPC address of Triton")
    args = parser.parse_args(argv)
    # Else the memory of each message comes from the system anew, page by page: 1.9 ms of a core for one of 1 MiB.
    give_back_large_blocks()
    asyncio.run(_main(args.listen, args.triton))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
