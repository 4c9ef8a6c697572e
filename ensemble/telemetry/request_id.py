"""Request ids: the caller's, or a new one. Answers, errors and log lines carry it.

The id is sent in the trailers, not in the initial metadata: gRPC's clients do not retry a call whose response has
begun.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

KEY = "x-request-id"
"""Metadata key, in requests and answers."""
_SANE = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """The request handled in this context, for the log."""

    request_id: str
    trace_id: str = ""
    """32 hexadecimal digits; empty if nothing is traced."""


ANSWERING: ContextVar[Answering | None] = ContextVar("landseer_answering", default=None)
"""Set in the task that answers an RPC, and inherited by the tasks it starts."""


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the caller's id if it is one to 128 printable ASCII characters, else a new one."""
    for key, value in metadata:
        if key == KEY:
            return value if isinstance(value, str) and _SANE.fullmatch(value) else new_request_id()
    return new_request_id()


def new_request_id() -> str:
    """Return 16 random hexadecimal digits."""
    return secrets.token_hex(8)


def unexpected_error() -> str:
    """Return what callers are told of an error that nobody expected: where to look, without internal details."""
    answering = ANSWERING.get()
    return f"unexpected error; see the server's log{f' for request {answering.request_id}' if answering else ''}"
