"""The deadline that a request to Triton carries, so that nothing runs for a caller who has given up.

Triton's own `timeout` parameter needs a queue policy with a timeout, which its release in the wheel handles badly (see
model_settings.CONFIG_NAME), and does not tell when the request arrived. A parameter also reaches an ensemble's steps.
"""

from __future__ import annotations

import json

DEADLINE_PARAMETER = "landseer_deadline_us"
"""Custom parameter of a Triton request: the Unix time in microseconds after which nobody waits for the answer."""


def is_past(parameters: str, *, now: float) -> bool:
    """Say whether the deadline has passed. parameters: a request's, as JSON; now: Unix time in seconds."""
    if DEADLINE_PARAMETER not in parameters:
        return False
    try:
        deadline = int(json.loads(parameters)[DEADLINE_PARAMETER])
    except (KeyError, TypeError, ValueError):
        return False
    return now * 1e6 > deadline
