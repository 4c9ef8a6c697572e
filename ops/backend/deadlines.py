"""The deadline in a request to Triton, so that nothing runs for a caller who has given up.

Triton's own `timeout` parameter needs a queue policy with a timeout, which the wheel's release handles badly (see
model_settings.CONFIG_NAME), and does not tell when the request arrived. A parameter also reaches an ensemble's steps.

The parameter holds no time of day, as clocks of two machines differ. It says how long the caller waits and when, by the
caller's own clock, it began. That clock and ours differ by an amount nobody knows, but the quickest of a caller's
recent requests took hardly any time, so how much longer another took is how long it waited. (LEDBAT, RFC 6817, knows
delays in the same way.) No request is dropped before its deadline; it may run up to as long after it as the quickest
took.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

TIMEOUT_PARAMETER = "landseer_timeout"
"""Custom parameter of a Triton request, `CLOCK SENT TIMEOUT`: a name for the caller's clock, which must not jump, its
reading when the request was sent, and how long the caller waits, both in microseconds."""
WINDOW_S = 60.0
"""The quickest request is that of this window and the one before: clocks drift, and stop where a machine is paused."""
MOST_CLOCKS = 64
"""Callers remembered; the one that was silent longest is forgotten."""


@dataclass(eq=False)
class _Clock:
    """How much later than its sending, by the caller's clock, a request arrives at least, by ours."""

    lowest: dict[int, float] = field(default_factory=dict)
    """Seconds by window, of the last two."""

    def arrived(self, later: float, *, now: float) -> float:
        window = int(now // WINDOW_S)
        self.lowest = {known: value for known, value in self.lowest.items() if known >= window - 1}
        self.lowest[window] = min(later, self.lowest.get(window, later))
        return min(self.lowest.values())


class Deadlines:
    """Tells the deadlines of requests by our own clock. For one thread."""

    def __init__(self) -> None:
        self._clocks: dict[str, _Clock] = {}

    def of(self, parameters: str, *, now: float) -> float:
        """Return the deadline of a request that has just arrived, in seconds of our clock; infinite without one.

        parameters: the request's, as JSON; now: our clock, such as `time.monotonic`.
        """
        if TIMEOUT_PARAMETER not in parameters:
            return math.inf
        try:
            name, sent, timeout = str(json.loads(parameters)[TIMEOUT_PARAMETER]).split()
            began, patience = int(sent) / 1e6, int(timeout) / 1e6
        except (KeyError, TypeError, ValueError):
            return math.inf
        clock = self._clocks[name] = self._clocks.pop(name, _Clock())
        if len(self._clocks) > MOST_CLOCKS:
            del self._clocks[next(iter(self._clocks))]
        return began + clock.arrived(now - began, now=now) + patience
