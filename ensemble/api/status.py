"""Conversion of errors to `google.rpc.Status` with machine-readable details."""

from __future__ import annotations

import random
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from landseer.ensemble.errors import InvalidInput, LandseerError

DOMAIN = "landseer"
DETAILS_KEY = "grpc-status-details-bin"
"""Key of the trailing metadata where gRPC libraries look for a serialised google.rpc.Status."""
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Key of the trailing metadata that gRPC's retries obey; a negative value means none."""
_LONGEST_MESSAGE = 600
"""Characters. Trailers share 8 KiB with the other metadata, and a message may quote the request."""


def status_of(error: LandseerError, request_id: str) -> status_pb2.Status:
    """Return the google.rpc.Status of an error: ErrorInfo, RequestInfo; BadRequest and RetryInfo where they apply."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=clip(str(error)))
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=clip(error.description))
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def unexpected(request_id: str) -> status_pb2.Status:
    """Return the status of an unexpected error: it says where to look, without internal details."""
    message = f"unexpected error; see the server's log for request {request_id}"
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=message)
    info = error_details_pb2.ErrorInfo(reason="UNEXPECTED", domain=DOMAIN, metadata={"request_id": request_id})
    _add(status, info)
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    return status


def grpc_code(status: status_pb2.Status) -> grpc.StatusCode:
    """Return the gRPC code of a status."""
    return grpc.StatusCode[code_pb2.Code.Name(status.code)]


def trailers(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata that carries a status."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def pushback(error: Exception, left_s: float | None) -> tuple[tuple[str, str], ...]:
    """Return the trailer that tells gRPC's own retries of a RESOURCE_EXHAUSTED when to come back, or not to.

    That is after RetryInfo's time, spread over half as long again, so that those refused together do not come back
    together; never if the deadline, `left_s` seconds from now, comes first. gRPC reads this, not RetryInfo.
    """
    if not isinstance(error, LandseerError) or error.code != "RESOURCE_EXHAUSTED":
        return ()
    after = None if error.retry_after_s is None else error.retry_after_s * random.uniform(1.0, 1.5)
    never = after is None or (left_s is not None and after >= left_s)
    return ((PUSHBACK_KEY, "-1" if never or after is None else str(round(1000 * after))),)


def clip(text: str) -> str:
    """Truncate a long message."""
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def _add(status: status_pb2.Status, detail: Any) -> None:
    status.details.add().Pack(detail)
