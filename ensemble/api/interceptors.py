"""The interceptor around every RPC: request id, metrics, traces, and errors turned into statuses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import grpc
from google.rpc import status_pb2

from landseer.ensemble.api.door import Door, stream
from landseer.ensemble.api.status import clip, grpc_code, pushback, status_of, trailers, unexpected
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.request_id import ANSWERING, KEY, Answering, request_id_of
from landseer.ensemble.telemetry.tracing import OFF, RpcSpan, Tracing

log = logging.getLogger(__name__)
CLOCKS_APART_S = 0.05
"""The caller hangs up that much sooner: its deadline runs from when it sent the call, ours from when that arrived."""
_LEVELS = dict.fromkeys(
    (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
    ),
    logging.INFO,
)
"""Log level by status code. Successes and callers' mistakes are logged at debug level."""
Behaviour = Callable[[Any, Any], Awaitable[Any]]
Receive = Callable[[Any], AbstractAsyncContextManager[Any]]


class Observer(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Observes our own services; health and reflection are passed through."""

    def __init__(self, metrics: Metrics, door: Door, tracing: Tracing = OFF) -> None:
        self._metrics = metrics
        self._door = door
        self._tracing = tracing

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the method's handler, observed; None for an unknown method."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or not service.startswith("landseer.") or handler.response_streaming:
            return handler
        parse, serialise = handler.request_deserializer, handler.response_serializer
        if handler.stream_unary:
            observed: Any = self._observed(handler.stream_unary, stream, service, method)
            return grpc.stream_unary_rpc_method_handler(observed, parse, serialise)
        # As a stream of one message, so that it is the door that reads it.
        receive = partial(self._door.request, parse=parse)
        observed = self._observed(handler.unary_unary, receive, service, method)
        return grpc.stream_unary_rpc_method_handler(observed, None, serialise)

    def _observed(self, inner: Behaviour, receive: Receive, service: str, method: str) -> Behaviour:
        """inner: takes what `receive` makes of the messages."""
        name = f"{service}/{method}"

        async def observed(messages: Any, context: Any) -> Any:
            metadata = context.invocation_metadata() or ()
            request_id = request_id_of(metadata)
            with self._tracing.rpc(service, method, metadata, request_id) as span:
                # This task handles only this RPC, so there is nothing to reset.
                ANSWERING.set(Answering(request_id=request_id, trace_id=span.trace_id))
                return await answered(messages, context, request_id, span)

        async def answered(messages: Any, context: Any, request_id: str, span: RpcSpan) -> Any:
            started, code, why, request = time.perf_counter(), grpc.StatusCode.OK, "", None
            self._metrics.in_flight.labels(service, method).inc()
            try:
                with self._door.open():
                    async with receive(messages) as request:
                        # How fast it was sent is the sender's doing.
                        started = time.perf_counter()
                        answer = await inner(request, context)
                # As a trailer: headers would be sent before the answer, and clients do not retry a call whose response
                # has begun, should this process die in between.
                context.set_trailing_metadata(((KEY, request_id),))
                return answer
            except asyncio.CancelledError:
                code = _why_cancelled(context)
                raise
            except Exception as error:
                status, why = _status(error, request_id), f": {_told(error, name)}"
                code, when = grpc_code(status), pushback(error, context.time_remaining())
                _forget_frames(error)
            finally:
                # gRPC keeps this frame, until the next garbage collection, with the error that `abort` raises.
                request = None
                seconds = time.perf_counter() - started
                self._metrics.in_flight.labels(service, method).dec()
                self._metrics.handling.labels(service, method).observe(seconds)
                self._metrics.handled.labels(service, method, code.name).inc()
                span.ends(code)
                level = _LEVELS.get(code, logging.DEBUG)
                log.log(level, "%s: %s after %.1f ms%s", name, code.name, 1000 * seconds, why)
            # Count before sending, as for answers: the caller may read the metrics right after.
            return await context.abort(code, status.message, ((KEY, request_id), *trailers(status), *when))

        return observed


def _forget_frames(error: BaseException | None) -> None:
    """Cut an error loose from the frames that it came through, which hold the picture.

    Those of a thread hold the future that holds the error, a circle that only the next garbage collection would free.
    """
    # Ends at what was freed before, too: errors may name each other as causes.
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _why_cancelled(context: Any) -> grpc.StatusCode:
    """Return why gRPC cancelled the handler: the caller went away, or its deadline passed."""
    left = context.time_remaining()
    passed = left is not None and left < CLOCKS_APART_S
    return grpc.StatusCode.DEADLINE_EXCEEDED if passed else grpc.StatusCode.CANCELLED


def _status(error: Exception, request_id: str) -> status_pb2.Status:
    return status_of(error, request_id) if isinstance(error, LandseerError) else unexpected(request_id)


def _told(error: Exception, method: str) -> str:
    """Return an error as one line for the log. Unexpected errors are also logged with their traceback."""
    if isinstance(error, LandseerError):
        return f"{error.reason}: {clip(' '.join(str(error).split()))}"
    log.error("%s failed", method, exc_info=error)
    return type(error).__name__
