"""The interceptor that turns requests that cannot be parsed into INVALID_ARGUMENT.

gRPC (1.85) by itself answers UNKNOWN and logs a traceback for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from landseer.ensemble.errors import InvalidInput


@dataclass(frozen=True)
class _Unreadable:
    """A request that is no message of its method."""

    size: int


class Decoder(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Parses the requests of our own services. It must be within what turns errors into statuses."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the method's handler, behind our parsing; None for an unknown method."""
        handler = await continuation(handler_call_details)
        ours = handler_call_details.method.startswith("/landseer.")
        if handler is None or not ours or handler.response_streaming or handler.request_deserializer is None:
            return handler

        async def unary(request: Any, context: Any) -> Any:
            return await handler.unary_unary(_readable(request), context)

        async def stream(requests: AsyncIterator[Any], context: Any) -> Any:
            return await handler.stream_unary(_all_readable(requests), context)

        coders = (_cautious(handler.request_deserializer), handler.response_serializer)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(cast("Any", stream), *coders)
        return grpc.unary_unary_rpc_method_handler(cast("Any", unary), *coders)


def _cautious(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _Unreadable(len(data))

    return parsed


def _readable(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise InvalidInput(
            "request",
            f"got {request.size:,} bytes that are no message of this method; expected one of client/proto/landseer/v1, "
            "with text in UTF-8",
        )
    return request


async def _all_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)
