"""Reads Triton's log: what is worth showing, and why a start failed."""

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
    # OpenVINO tries its other formats on a file that is not ONNX.
    "tensorflow.GraphDef",
    "All log messages before absl::InitializeLog",
)
"""What is said at every start on a machine without a GPU, where it does no harm, and what explains nothing."""

_PREFIX = re.compile(r'^[IWEF]\d{4} \S+ \d+ \S+\] "?|^\[libprotobuf \w+ \S+\] ')
_CONSEQUENCE = ("which has no loaded version", "not available or ambiguous")
"""Said of models that lack another one, whose reason is the reason, if Triton knows it at all."""
_EMPTY = "failed to load all models"
_CAUSE = ("failed to load", "Poll failed", "has no field named", "Error parsing text-format")
_LIMIT = 400


def is_worth_showing(line: str) -> bool:
    """Say whether a line is a warning, an error, or something that Triton did not write."""
    informational = line.startswith("I") and _PREFIX.match(line) is not None
    return bool(line.strip()) and not informational and not any(noise in line for noise in NOISE)


def reasons(lines: Iterable[str]) -> list[str]:
    """Return why a start failed: the causes, else whatever went wrong; none twice."""
    shown = [line for line in lines if is_worth_showing(line)]
    wrong = [line for line in shown if not line.startswith("W") and _EMPTY not in line]
    first = [line for line in wrong if not any(said in line for said in _CONSEQUENCE)]
    causes = [line for line in first if any(said in line for said in _CAUSE)]
    return list(dict.fromkeys(_message(line) for line in causes or first or wrong))


def _message(line: str) -> str:
    """Return one line's message without the prefix, the Python traceback and the escaped line ends."""
    text = _PREFIX.sub("", line).rstrip('"').split("\\n\\nAt:")[0]
    text = re.sub(r"(\\n)+", " ", text).replace('\\"', '"').strip()
    text = re.sub(r"Exception from \S+:\d+: ", "", text)  # OpenVINO's own source lines
    return text if len(text) <= _LIMIT else text[:_LIMIT] + " ..."
