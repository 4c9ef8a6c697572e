"""The gate before each kind of request: what would be answered too late is refused at once, before any work.

A gate counts the requests inside, and measures how long one takes of the machine: the time inside, shared evenly among
those inside. With n inside the next one is answered after about (n + 1) times that. A request is refused

- if that is after its caller's deadline: it would be worked on for nobody,
- if that is later than `refuse_after_s`: a line as long as that only makes all answers late, since those behind it are
  answered no sooner than those that come back,
- if `most` are inside.

`at_once` may be inside in any case, deadlines permitting, as many as the machine works on at the same time. A line of
`refuse_after_s` is good for a burst, as all are answered. Under lasting overload it never ends, and only makes every
answer late. So while more than a third of those that come are refused, and until those who were refused came back, the
line may be a third as long: as many are answered, and sooner.

Why so: the line is kept short at its end, so the order within matters little. It stays first in, first out, which is
fair; last in, first out, or dropping from the front as CoDel does, would help only if the line could grow long, and
both throw away what has been received and decoded. Nobody inside has to be told to leave, as gRPC cancels the work of
callers who have gone or whose deadline has passed.

The more are refused one after another, the later they are asked to come back: a refusal takes processor time, too, and
with many callers those that come back each second take it from the answers.

Each kind of request has a gate of its own, so searches by id are counted and refused apart from searches by picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import Overloaded
from landseer.ensemble.telemetry.metrics import SEARCH_OBJECTIVE_S, Metrics

FIRST_GUESS_S = SEARCH_OBJECTIVE_S
"""What a request is taken to need before any was measured."""
WEIGHT = 0.1
"""Of the latest request in the smoothed time; the first ones count alike."""
OUTLIER = 4.0
"""One request counts as at most this many times the smoothed time: Triton may have been restarted meanwhile."""
MARGIN = 1.1
"""A deadline must leave this many times the expected time."""
PIPELINE = 2
"""Least number that may always be inside: one is prepared while the models run for the other."""
MOST_REFUSED = 1 / 3
"""Share of the latest arrivals that are refused, above which it is an overload."""
OVERLOADED = 1 / 3
"""Of `refuse_after_s` during an overload."""
LATEST = 0.05
"""Of the latest arrival in that share."""
LEAST_PAUSE_S, MOST_PAUSE_S = 0.5, 5.0
"""Refused callers are asked to wait at least this long, and at most, unless no place is free before."""
OVER_S = 2 * MOST_PAUSE_S
"""An overload is over when so long no more than `MOST_REFUSED` were refused: all who were asked to wait have come."""


class Gate:
    """Lets requests of one kind in. For one event loop."""

    def __init__(
        self,
        name: str,
        *,
        most: int,
        metrics: Metrics,
        refuse_after_s: float | None = None,
        at_once: int = PIPELINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """refuse_after_s: None if only deadlines count. clock: in seconds, the same as deadlines have."""
        self._name = name
        self._most = most
        self._refuse_after_s = refuse_after_s
        self._at_once = max(PIPELINE, at_once)
        self._clock = clock
        self._shed = metrics.shed
        self._inside = 0
        self._refused = 0
        self._refused_share = 0.0
        self._overloaded_until = -math.inf
        self._each_s = FIRST_GUESS_S
        self._measured = 0
        self._work = 0.0
        self._looked = clock()
        metrics.admitted.labels(name).set_function(lambda: self._inside)
        metrics.expected.labels(name).set_function(lambda: self.expected_s)

    @property
    def expected_s(self) -> float:
        """Seconds after which the next request would be answered."""
        return (self._inside + 1) * self._each_s

    @contextmanager
    def admitted(self, deadline: Deadline) -> Iterator[None]:
        """Be inside, or raise Overloaded at once."""
        self._check(deadline)
        started, answered = self._advance(), False
        self._inside += 1
        self._refused = 0
        self._refused_share *= 1 - LATEST
        try:
            yield
            answered = True
        finally:
            took = self._advance() - started
            self._inside -= 1
            # What fails early says nothing; what took long before it failed would have taken longer still.
            if answered or took > self._each_s:
                self._measure(min(took, OUTLIER * self._each_s))

    def _measure(self, took: float) -> None:
        self._measured += 1
        self._each_s += max(WEIGHT, 1 / self._measured) * (took - self._each_s)

    def _advance(self) -> float:
        """Return a clock that goes n times slower while n are inside."""
        now = self._clock()
        self._work += (now - self._looked) / max(1, self._inside)
        self._looked = now
        return self._work

    def _check(self, deadline: Deadline) -> None:
        left = None if deadline.at is None else deadline.at - self._clock()
        takes, limit = self.expected_s, self._refuse_after_s
        if self._inside >= self._most:
            self._refuse("full", f"{self._inside} {self._name} requests are being answered, as many as may be", takes)
        # With nobody inside there is nothing to wait for, whatever was measured before.
        if left is not None and self._inside and MARGIN * takes > left:
            said = f"an answer would take {takes:.1f} s now, and the deadline leaves {max(0.0, left):.1f} s"
            self._refuse("deadline", said, takes - left / MARGIN)
        if limit is not None and self._inside >= self._at_once:
            self._check_line(takes, limit)

    def _check_line(self, takes: float, limit: float) -> None:
        """Refuse what would make the line too long."""
        meanwhile = ""
        if self._clock() < self._overloaded_until:
            limit, meanwhile = limit * OVERLOADED, " while it refuses many"
        if takes > limit:
            said = f"an answer would take {takes:.1f} s now, and this server refuses what takes longer than {limit:g} s"
            self._refuse("slow", said + meanwhile, takes - limit)

    def _refuse(self, reason: str, said: str, excess_s: float) -> None:
        self._shed.labels(self._name, reason).inc()
        self._refused += 1
        # A deadline that is too short says little about the load.
        if reason != "deadline":
            self._refused_share += LATEST * (1 - self._refused_share)
        if self._refused_share > MOST_REFUSED:
            self._overloaded_until = self._clock() + OVER_S
        pause_s = min(self._refused * LEAST_PAUSE_S, MOST_PAUSE_S)
        raise Overloaded(f"{said}; try again later", retry_after_s=max(pause_s, excess_s))
