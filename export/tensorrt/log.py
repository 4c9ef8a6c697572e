"""Collect TensorRT's errors, so that a failure can name its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorrt as trt

MOST_REASONS = 3


def new_log() -> tuple[trt.ILogger, list[str]]:
    """Return a logger for TensorRT and the list that it appends errors to."""
    import tensorrt as trt

    errors: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc,unused-ignore]  # unknown to mypy without the bindings
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(" ".join(msg.split()))

    return Log(), errors


def reasons(errors: list[str]) -> str:
    """Join the first errors into one line."""
    return "; ".join(errors[:MOST_REASONS]) or "TensorRT gave no reason"
