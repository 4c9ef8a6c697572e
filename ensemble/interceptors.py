"""What happens around every RPC: counting, timing, and errors made into statuses."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.rpc import status_pb2

from landseer.ensemble.errors import LandseerError
from landseer.ensemble.metrics import Metrics
from landseer.ensemble.status import grpc_code, status_of, trailers, unexpected

log = logging.getLogger(__name__)
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class Observer(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps our own services; health and reflection pass as they are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the method's handler, observed; None for an unknown method."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or not service.startswith("landseer.") or handler.response_streaming:
            return handler
        observed: Any = self._observed(handler.stream_unary or handler.unary_unary, service, method)
        make = grpc.stream_unary_rpc_method_handler if handler.stream_unary else grpc.unary_unary_rpc_method_handler
        return make(observed, handler.request_deserializer, handler.response_serializer)

    def _observed(self, inner: Behaviour, service: str, method: str) -> Behaviour:
        async def observed(request: Any, context: Any) -> Any:
            started, code = time.perf_counter(), grpc.StatusCode.OK
            self._metrics.in_flight.labels(service, method).inc()
            try:
                return await inner(request, context)
            except asyncio.CancelledError:
                code = _why_cancelled(context)
                raise
            except Exception as error:
                status = _status(error, f"{service}/{method}")
                code = grpc_code(status)
                await context.abort(code, status.message, trailers(status))
            finally:
                self._metrics.in_flight.labels(service, method).dec()
                self._metrics.handling.labels(service, method).observe(time.perf_counter() - started)
                self._metrics.handled.labels(service, method, code.name).inc()

        return observed


def _why_cancelled(context: Any) -> grpc.StatusCode:
    """GRPC cancels a handler both when its caller goes away and when its deadline passes."""
    return grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED


def _status(error: Exception, method: str) -> status_pb2.Status:
    if isinstance(error, LandseerError):
        log.debug("%s: %s: %s", method, error.reason, error)
        return status_of(error)
    request_id = uuid.uuid4().hex[:16]
    log.error("%s failed, request %s", method, request_id, exc_info=error)
    return unexpected(request_id)
