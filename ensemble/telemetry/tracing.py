"""Where an answer's spans begin and end. `Tracing` itself records nothing and costs next to nothing.

`spans.Spans` records them with OpenTelemetry, which this module does not need.
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
        """Note the status of the RPC."""


_UNTRACED = nullcontext(RpcSpan())
_NOTHING: nullcontext[Any] = nullcontext()


class Tracing:
    """Traces nothing: what an orchestrator has unless it is told otherwise."""

    def rpc(self, service: str, method: str, metadata: Metadata, request_id: str) -> AbstractContextManager[RpcSpan]:
        """Span an RPC; `metadata` may name the caller's span."""
        return _UNTRACED

    def stage(self, stage: str) -> AbstractContextManager[None]:
        """Span a stage of an answer."""
        return _NOTHING

    def triton(self, model: str) -> AbstractContextManager[dict[str, str] | None]:
        """Span a call of Triton. Gives the headers that name the span to Triton; None for none."""
        return _NOTHING

    def close(self) -> None:
        """Send what was recorded and not yet sent."""


OFF = Tracing()


def tracing_by_environment() -> Tracing:
    """Return what OpenTelemetry's variables ask for. ValueError if they ask for what is not there."""
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
