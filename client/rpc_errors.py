"""Turns gRPC errors into the client's own, using the google.rpc.Status that Landseer sends with each."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from landseer.client.errors import (
    DeadlinePassed,
    Exhausted,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotIndexed,
    Refused,
    RpcFailed,
    ServerFault,
    ServerUnavailable,
    ServerUnreachable,
)
from landseer.client.readable import size

_M = TypeVar("_M", bound=Message)

_CUT = re.compile("GOAWAY received|Cancelling all calls|Received RST_STREAM|Stream removed")
"""What gRPC says of a call that was under way when its server stopped, or when a proxy lost the server."""
_CUT_CODES = ("UNAVAILABLE", "INTERNAL", "UNKNOWN")
"""The codes that come with it: INTERNAL or UNKNOWN for most of HTTP/2's reasons to reset a stream."""

_BY_CODE: dict[str, type[RpcFailed]] = {
    "UNAVAILABLE": ServerUnavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotIndexed,
    "FAILED_PRECONDITION": Refused,
    "UNAUTHENTICATED": NotAuthenticated,
    "PERMISSION_DENIED": NotAllowed,
    "RESOURCE_EXHAUSTED": Exhausted,
    "DEADLINE_EXCEEDED": DeadlinePassed,
}


def from_rpc_error(error: grpc.aio.AioRpcError, *, address: str, timeout: float | None) -> RpcFailed:
    """Return the client's error for a gRPC error. `timeout` is the call's deadline in seconds."""
    code, text, status = error.code(), error.details() or "", _status(error)
    kind = _BY_CODE.get(code.name, ServerFault)
    if status is None and (code.name == "CANCELLED" or (code.name in _CUT_CODES and _CUT.search(text))):
        kind, text = ServerUnavailable, _cut(address)
    elif status is None and code.name == "UNAVAILABLE":
        kind, text = ServerUnreachable, _unreachable(address, text)
    if status is None and code.name == "DEADLINE_EXCEEDED" and timeout:
        text = f"no answer from {address} within {timeout:g} s; set a longer timeout"
    if status is None and code.name == "RESOURCE_EXHAUSTED":
        text = _too_large(text)
    status = status or Status()
    reason = next((info.reason for info in _details(status, ErrorInfo)), "")
    violations = tuple((v.field, v.description) for bad in _details(status, BadRequest) for v in bad.field_violations)
    return kind(_message(text, violations, code), code=code, reason=reason, violations=violations)


def _status(error: grpc.aio.AioRpcError) -> Status | None:
    """Return the status the server attached, None if it attached none; an unreadable one counts as empty."""
    try:
        status: Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # has the methods of grpc.Call
    except (DecodeError, ValueError):
        return Status()
    return status


def _details(status: Status, kind: type[_M]) -> list[_M]:
    """Return the details of one kind; unreadable ones are dropped."""
    found = []
    for packed in status.details:
        detail = kind()
        with suppress(DecodeError):
            if packed.Unpack(detail):
                found.append(detail)
    return found


def _cut(address: str) -> str:
    return f"the server at {address}, or a proxy before it, ended the call before it was done; try again"


def _unreachable(address: str, text: str) -> str:
    if found := re.search(r"Tls handshake failed.*OPENSSL_internal:(\w+)(?:: ([^:]+))?", text):
        if found[1] == "WRONG_VERSION_NUMBER":
            return f"the server at {address} does not speak TLS; leave out --tls-ca, or name an address that does"
        why = found[2] if found[1] == "CERTIFICATE_VERIFY_FAILED" and found[2] else found[1].lower().replace("_", " ")
        return (
            f"the certificate of the server at {address} is not trusted: {why}; --tls-ca must name its authority, and "
            "the certificate this host"
        )
    cause = text.rpartition(": ")[2]
    why = f" ({cause})" if cause else ""
    # What a client in plain text sees of a server with TLS, and one without a certificate of a server that asks for it.
    tls = "; if it speaks TLS, add --tls-ca, and --tls-cert if it asks for certificates"
    hint = tls if cause == "Socket closed" else ""
    return f"no Landseer server answers at {address}{why}; start one with `landseer up` or use another address{hint}"


def _too_large(text: str) -> str:
    """Return what to do about a message that gRPC refused by its size; other texts as they are."""
    found = re.search(r"(CLIENT|SERVER): \w+ message larger than max \((\d+) vs\. (\d+)\)", text)
    if found is None:
        return text
    got, most = size(int(found[2])), size(int(found[3]))
    if found[1] == "SERVER":
        return f"the request has {got}, and the server takes no larger request than {most}; send a smaller picture"
    return f"the answer has {got}, more than {most}; ask for fewer hits, or raise max_answer_bytes of the client"


def _message(text: str, violations: tuple[tuple[str, str], ...], code: grpc.StatusCode) -> str:
    """Return the status message, or the field violations if it leaves one out."""
    named = "; ".join(f"{field}: {description}" for field, description in violations)
    if named and not all(description in text for _, description in violations):
        return named
    return text or named or f"the server failed with {code.name} and no message"
