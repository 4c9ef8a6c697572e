"""The errors that the client raises. Each message is one line and, where it can, says what to do next.

LandseerClientError
├── UnusableInput           an unreadable file or an invalid value; nothing was sent
├── NotReady                the server did not become ready in time
├── ForkedClient            the process was forked while a client was connected
└── RpcFailed               a call failed; has `code`, `reason` and `violations`
    ├── ServerUnreachable   UNAVAILABLE, not sent by a server: nothing answers at the address
    ├── ServerUnavailable   UNAVAILABLE, sent by the server: its models do not answer, or it stops; try again.
    │                       Also CANCELLED, if somebody else than the caller cancelled the call, and INTERNAL or
    │                       UNKNOWN, if a proxy cut it
    ├── InvalidRequest      INVALID_ARGUMENT    the request is invalid; `violations` name the fields
    ├── NotIndexed          NOT_FOUND           no picture has that id
    ├── Refused             FAILED_PRECONDITION an untrained model, or an index made by other models
    ├── NotAuthenticated    UNAUTHENTICATED     the server asks for a token, and got none that it knows
    ├── NotAllowed          PERMISSION_DENIED   the token's role does not allow the call
    ├── Exhausted           RESOURCE_EXHAUSTED  the store, the queue or a rate is full, or the message is too large
    ├── DeadlinePassed      DEADLINE_EXCEEDED   no answer in time
    └── ServerFault         any other code
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from landseer.client.readable import one_line

if TYPE_CHECKING:
    import grpc


class LandseerClientError(Exception):
    """The base of all errors of the client."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UnusableInput(LandseerClientError):
    """The caller's input cannot be used; nothing was sent."""


class NotReady(LandseerClientError):
    """The server did not become ready in time."""


class ForkedClient(LandseerClientError):
    """The process was forked while a client was connected, so that no call can work in it."""


class RpcFailed(LandseerClientError):
    """A call that failed."""

    def __init__(
        self, message: str, *, code: grpc.StatusCode, reason: str = "", violations: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """The server's machine-readable reason, such as MODEL_UNTRAINED; empty if it sent none."""
        self.violations = violations
        """Pairs of a request field and what is wrong with it."""


class ServerUnreachable(RpcFailed):
    """Nothing answers at the address."""


class ServerUnavailable(RpcFailed):
    """The server answers, but its models do not, or it stops."""


class InvalidRequest(RpcFailed):
    """The request is invalid."""


class NotIndexed(RpcFailed):
    """No indexed picture has that id."""


class Refused(RpcFailed):
    """The server's state does not allow the call: an untrained model, or an index made by other models."""


class NotAuthenticated(RpcFailed):
    """The server asks for a token, and got none that it knows."""


class NotAllowed(RpcFailed):
    """The token's role does not allow the call."""


class Exhausted(RpcFailed):
    """The store or the queue is full, the token has used its rate, or the message is too large."""


class DeadlinePassed(RpcFailed):
    """No answer within the deadline."""


class ServerFault(RpcFailed):
    """The server failed in a way that is not the caller's fault."""
