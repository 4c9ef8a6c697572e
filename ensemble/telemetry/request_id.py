"""The name of a request: the caller's, or a new one. The answer, its errors and the log lines that tell of it carry it.

Metadata of a success are the first thing sent, so the id goes out just before the answer and not at the start: a
response that has begun is one that gRPC's clients no longer retry. An error has it in its trailers.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

KEY = "x-request-id"
"""Of the metadata, both ways."""
_SANE = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """The request that runs in this context, for the log."""

    request_id: str
    trace_id: str = ""
    """32 hexadecimal digits; empty if nothing is traced."""


ANSWERING: ContextVar[Answering | None] = ContextVar("landseer_answering", default=None)
"""Set for the task that answers an RPC, inherited by what it starts."""


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the caller's id if it is one to 128 printable ASCII characters, else a new one."""
    for key, value in metadata:
        if key == KEY:
            return value if isinstance(value, str) and _SANE.fullmatch(value) else new_request_id()
    return new_request_id()


def new_request_id() -> str:
    """Return 16 random hexadecimal digits."""
    return secrets.token_hex(8)
