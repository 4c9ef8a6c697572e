"""Every error that the client raises. Each one's text is a single line that says what to do next.

LandseerClientError
├── UnusableInput           found before anything was sent: a file that cannot be read, a value that makes no sense
├── NotReady                the server did not become ready in time
└── RpcFailed               a call that failed; carries `code`, `reason` and `violations`
    ├── ServerUnreachable   UNAVAILABLE, and no server said so: nothing answers at the address
    ├── ServerUnavailable   UNAVAILABLE, said by the server: its models are away; try again
    ├── InvalidRequest      INVALID_ARGUMENT    the request; `violations` name the fields
    ├── NotIndexed          NOT_FOUND           no picture of that id
    ├── Refused             FAILED_PRECONDITION an untrained model, or an index made by other models
    ├── Exhausted           RESOURCE_EXHAUSTED  the store is full, the queue is full, or the message is too large
    ├── DeadlinePassed      DEADLINE_EXCEEDED   no answer in time
    └── ServerFault         any other code
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from landseer.client.readable import one_line
from landseer.client.wire import StatusDetails, decode_status

if TYPE_CHECKING:
    import grpc

_DETAILS_KEY = "grpc-status-details-bin"


class LandseerClientError(Exception):
    """Anything that keeps a call or a command from being done."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UnusableInput(LandseerClientError):
    """Something the caller gave cannot be used; nothing was sent."""


class NotReady(LandseerClientError):
    """The server did not become ready in time."""


class RpcFailed(LandseerClientError):
    """A call that failed."""

    def __init__(self, message: str, *, code: grpc.StatusCode, details: StatusDetails) -> None:
        super().__init__(message)
        self.code = code
        self.reason = details.reason
        """The server's reason for machines, e.g. MODEL_UNTRAINED; empty if it gave none."""
        self.violations = details.violations
        """Pairs of field and description, of what is wrong with the request."""


class ServerUnreachable(RpcFailed):
    """Nothing answers at the address."""


class ServerUnavailable(RpcFailed):
    """The server answers, but not its models."""


class InvalidRequest(RpcFailed):
    """The server cannot use the request."""


class NotIndexed(RpcFailed):
    """No picture of that id is indexed."""


class Refused(RpcFailed):
    """The server's state forbids it: an untrained model, or an index made by other models."""


class Exhausted(RpcFailed):
    """Something is full, or the message is larger than the server takes."""


class DeadlinePassed(RpcFailed):
    """No answer within the deadline."""


class ServerFault(RpcFailed):
    """The server failed in a way that is not the caller's fault."""


_BY_CODE: dict[str, type[RpcFailed]] = {
    "UNAVAILABLE": ServerUnavailable,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotIndexed,
    "FAILED_PRECONDITION": Refused,
    "RESOURCE_EXHAUSTED": Exhausted,
    "DEADLINE_EXCEEDED": DeadlinePassed,
}


class RpcErrorLike(Protocol):
    """The part of grpc.aio.AioRpcError that is read here."""

    def code(self) -> grpc.StatusCode:
        """Return the status."""

    def details(self) -> str | None:
        """Return the status message."""

    def trailing_metadata(self) -> Any:
        """Return pairs of key and value."""


def from_rpc_error(error: RpcErrorLike, *, address: str, timeout: float | None) -> RpcFailed:
    """Return ours for gRPC's. `timeout` in seconds is the deadline that the call had."""
    data = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY)
    details = decode_status(data) if isinstance(data, bytes) else StatusDetails()
    code, text = error.code(), error.details() or ""
    if code.name == "UNAVAILABLE" and data is None:
        return ServerUnreachable(_unreachable(address, text), code=code, details=details)
    if code.name == "DEADLINE_EXCEEDED" and data is None:
        text = f"no answer from {address} within {timeout:g} s; give it a longer timeout" if timeout else text
    kind = _BY_CODE.get(code.name, ServerFault)
    return kind(_message(text, details, code), code=code, details=details)


def _unreachable(address: str, text: str) -> str:
    cause = text.rpartition(": ")[2]
    why = f" ({cause})" if cause else ""
    return f"no Landseer server answers at {address}{why}; start one with `landseer up` or name another"


def _message(text: str, details: StatusDetails, code: grpc.StatusCode) -> str:
    """Return the status message, led by the fields at fault where it does not name them itself."""
    named = "; ".join(f"{field}: {description}" for field, description in details.violations)
    if named and not all(description in text for _, description in details.violations):
        return named
    return text or named or f"the server failed with {code.name} and no message"
