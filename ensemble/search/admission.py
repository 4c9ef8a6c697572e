"""Admission to Triton: a bounded number of requests run, the others wait here, where they can still be dropped.

Triton cannot drop queued requests: a cancelled request of an ensemble still runs (measured on 2.51). And its own queue
limit makes it stall (docs/triton.md). So both limits are enforced here: on running requests, and on waiting ones,
beyond which the answer is Overloaded at once. Every call of Triton for a request takes a turn. How long the whole
request will take was judged before (`gate`), so few wait here, and who waits longer than its deadline leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import Overloaded
from landseer.ensemble.telemetry.metrics import Metrics

PATIENCE = 7
"""Turns of other lanes after which the last one gets one. Otherwise searches could block uploads forever."""


class Admission:
    """A bounded number of turns, given in order of arrival, earlier lanes first, except for `PATIENCE`."""

    def __init__(self, *, running: int, metrics: Metrics) -> None:
        self._free = running
        self._passed_by = 0
        self._lanes: list[Lane] = []
        self._metrics = metrics
        metrics.triton_in_flight.set_function(lambda: running - self._free)

    def lane(self, name: str, *, waiting: int) -> Lane:
        """Add a lane with at most `waiting` requests; lanes added earlier go first."""
        lane = Lane(self, name, waiting, self._metrics)
        self._lanes.append(lane)
        return lane

    def take(self) -> bool:
        """Take a turn if one is free and nobody waits."""
        if self._free == 0 or any(lane.queue for lane in self._lanes):
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Pass the turn to the next waiting request, or free it."""
        lanes = self._lanes if self._passed_by < PATIENCE else self._lanes[::-1]
        for lane in lanes:
            while lane.queue:
                turn = lane.queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    last = self._lanes[-1]
                    self._passed_by = self._passed_by + 1 if lane is not last and last.queue else 0
                    return
        self._free += 1


class Lane:
    """The queue of one kind of request."""

    def __init__(self, admission: Admission, name: str, waiting: int, metrics: Metrics) -> None:
        self._admission = admission
        self._name = name
        self._most = waiting
        self._shed = metrics.shed.labels(name, "full")
        self.queue: deque[asyncio.Future[None]] = deque()
        metrics.waiting.labels(name).set_function(lambda: len(self.queue))

    @asynccontextmanager
    async def turn(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Overloaded if too many wait; DeadlinePassed; dropped when cancelled."""
        if not self._admission.take():
            await self._wait(deadline)
        try:
            yield
        finally:
            self._admission.give_back()

    async def _wait(self, deadline: Deadline) -> None:
        if len(self.queue) >= self._most:
            self._shed.inc()
            raise Overloaded(f"{len(self.queue)} {self._name} requests are already waiting for Triton; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append(turn)
        try:
            # Shielded: the waiting task may be cancelled just as the turn is given.
            await deadline.within("the wait for Triton", asyncio.shield(turn))
        except BaseException:
            if turn.done():
                self._admission.give_back()
            else:
                turn.cancel()
                self.queue.remove(turn)
            raise
