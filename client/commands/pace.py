"""How fast work goes, and when it will end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from landseer.client.readable import duration

RECENT_S = 180.0
"""How far back the rate looks: longer than the pauses between two results of slow work, short enough to follow it."""
_SOON_S = 60.0


class Pace:
    """The rate of the last minutes, and the time that is left at this rate.

    It starts with the first result, as what goes before, such as loading models, says nothing about the rate.
    """

    def __init__(
        self,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """total: number of items; clock: seconds from anywhere; now: the time of day."""
        self._total, self._clock, self._now = total, clock, now
        self._seen = deque[tuple[float, int]]()

    def update(self, done: int) -> None:
        """Note that so many items are done."""
        self._seen.append((self._clock(), done))
        # One that is older stays, so that the rate is over at least so long.
        while len(self._seen) > 2 and self._seen[1][0] <= self._seen[-1][0] - RECENT_S:
            self._seen.popleft()

    @property
    def rate(self) -> str:
        """How many a second; empty while that is unknown."""
        rate = self._rate()
        return f"{rate:.1f} per second" if rate else ""

    @property
    def left(self) -> str:
        """The time that is left and, if it is long, the time of day at the end; empty while that is unknown."""
        rate = self._rate()
        if not rate:
            return ""
        seconds = (self._total - self._seen[-1][1]) / rate
        text = f"{duration(seconds)} left"
        return text if seconds < _SOON_S else f"{text}, until {self._time_in(seconds)}"

    def _rate(self) -> float:
        if not self._seen:
            return 0.0
        (start, before), (end, done) = self._seen[0], self._seen[-1]
        return (done - before) / (end - start) if end > start else 0.0

    def _time_in(self, seconds: float) -> str:
        today = self._now()
        end = today + timedelta(seconds=seconds)
        return f"{end:%H:%M}" if end.date() == today.date() else f"{end:%a %d %b %H:%M}"
