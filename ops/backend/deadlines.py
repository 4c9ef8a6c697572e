"""The deadline in a request to Triton, so that nothing runs for a caller who has given up.

Triton's own `timeout` parameter needs a queue policy with a timeout, which the wheel's release handles badly (see
model_settings.CONFIG_NAME), and does not tell when the request arrived. A parameter also reaches an ensemble's steps.
"""

from __future__ import annotations

import json

DEADLINE_PARAMETER = "landseer_deadline_us"
"""Custom parameter of a Triton request: its deadline, as Unix time in microseconds."""


def is_past(parameters: str, *, now: float) -> bool:
    """Return whether the deadline has passed. parameters: the request's, as JSON; now: Unix time in seconds."""
    if DEADLINE_PARAMETER not in parameters:
        return False
    try:
        deadline = int(json.loads(parameters)[DEADLINE_PARAMETER])
    except (KeyError, TypeError, ValueError):
        return False
    return now * 1e6 > deadline
