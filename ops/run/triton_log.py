"""Parses Triton's log: which lines to show, and why a start failed."""

from __future__ import annotations

import re
from collections.abc import Iterable

NOISE = (
    "CudaDriverHelper has not been initialized",
    "Unable to allocate pinned system memory",
    "failed to allocate pinned system memory",
    "unable to create stream for",
    "Failed to initialize NVML",
    "DCGM unable to start",
    "Signal (15) received",
    # OpenVINO tries its other formats when a file is not ONNX.
    "tensorflow.GraphDef",
    "All log messages before absl::InitializeLog",
)
"""Harmless messages of every start on a machine without a GPU, and messages that explain nothing."""

_PREFIX = re.compile(r'^[IWEF]\d{4} \S+ \d+ \S+\] "?|^\[libprotobuf \w+ \S+\] ')
_CONSEQUENCE = ("which has no loaded version", "not available or ambiguous")
"""Messages about models that depend on a failed one; the failed model's message has the reason."""
_EMPTY = "failed to load all models"
_CAUSE = ("failed to load", "Poll failed", "has no field named", "Error parsing text-format")
_LIMIT = 400


def is_worth_showing(line: str) -> bool:
    """Return whether a line is a warning or an error, or not from Triton's own log."""
    informational = line.startswith("I") and _PREFIX.match(line) is not None
    return bool(line.strip()) and not informational and not any(noise in line for noise in NOISE)


def reasons(lines: Iterable[str]) -> list[str]:
    """Return why a start failed: the causes if there are any, else all errors; without duplicates."""
    shown = [line for line in lines if is_worth_showing(line)]
    wrong = [line for line in shown if not line.startswith("W") and _EMPTY not in line]
    first = [line for line in wrong if not any(said in line for said in _CONSEQUENCE)]
    causes = [line for line in first if any(said in line for said in _CAUSE)]
    return list(dict.fromkeys(_message(line) for line in causes or first or wrong))


def _message(line: str) -> str:
    """Return the message of a line, without prefix, Python traceback and escaped newlines."""
    text = _PREFIX.sub("", line).rstrip('"').split("\\n\\nAt:")[0]
    text = re.sub(r"(\\n)+", " ", text).replace('\\"', '"').strip()
    text = re.sub(r"Exception from \S+:\d+: ", "", text)  # OpenVINO's source locations
    return text if len(text) <= _LIMIT else text[:_LIMIT] + " ..."
