"""The interface for tracing. `Tracing` itself records nothing and costs next to nothing.

`spans.Spans` records spans with OpenTelemetry, which this module does not import.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc

from landseer.client.tracing import MISSING, asked_by

log = logging.getLogger(__name__)
Metadata = Iterable[tuple[str, str | bytes]]


class RpcSpan:
    """An RPC that is not recorded."""

    trace_id = ""
    """32 hexadecimal digits; empty if the RPC is in no trace."""

    def ends(self, code: grpc.StatusCode) -> None:
        """Record the status of the RPC."""


_UNTRACED = nullcontext(RpcSpan())
_NOTHING: nullcontext[Any] = nullcontext()


class Tracing:
    """Records nothing: the default of an orchestrator."""

    def rpc(self, service: str, method: str, metadata: Metadata, request_id: str) -> AbstractContextManager[RpcSpan]:
        """Open a span for an RPC; `metadata` may name the caller's span."""
        return _UNTRACED

    def stage(self, stage: str) -> AbstractContextManager[None]:
        """Open a span for a stage of an answer."""
        return _NOTHING

    def triton(self, model: str) -> AbstractContextManager[dict[str, str] | None]:
        """Open a span for a call of Triton. Yields headers that pass the span on to Triton, or None."""
        return _NOTHING

    def close(self) -> None:
        """Send the remaining spans."""


OFF = Tracing()


def tracing_by_environment() -> Tracing:
    """Return the tracing configured by OpenTelemetry's variables. ValueError for unsupported values."""
    asking = asked_by(os.environ)
    if asking is None:
        return OFF
    try:
        from landseer.ensemble.telemetry.spans import Spans
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("%s %s", asking, MISSING)
        return OFF
    return Spans()
