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

from typing import TYPE_CHECKING

from landseer.client.readable import one_line

if TYPE_CHECKING:
    import grpc


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

    def __init__(
        self, message: str, *, code: grpc.StatusCode, reason: str = "", violations: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """The server's reason for machines, e.g. MODEL_UNTRAINED; empty if it gave none."""
        self.violations = violations
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
