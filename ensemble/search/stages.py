"""The stages of an answer: timed, bounded by the deadline, and skipped on failure if optional."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import InvalidInput, LandseerError, reason_of
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.request_id import unexpected_error
from landseer.ensemble.telemetry.tracing import OFF, Tracing

log = logging.getLogger(__name__)
T = TypeVar("T")
Stage = Literal[
    "filter",
    "decode",
    "describe",
    "regions",
    "keypoints",
    "search",
    "words",
    "expand",
    "research",
    "rerank",
    "via",
    "group",
    "store",
    "total",
]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they run: keypoints beside describe, words beside search; but verified hits expand the query
after `rerank`."""


class Stages:
    """Timings and degradations of one answer."""

    def __init__(self, metrics: Metrics, deadline: Deadline, *, reserve_s: float, tracing: Tracing = OFF) -> None:
        self.deadline = deadline
        self.timings: dict[str, float] = {}
        """Seconds by stage, in the order they ended; the sum for one that ran twice."""
        self.degradations: dict[str, str] = {}
        """Why a stage was skipped, or did only a part, by stage."""
        self._metrics = metrics
        self._tracing = tracing
        self._optional = deadline.sooner(reserve_s)

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Time and trace a stage, and count its error if it fails."""
        started = time.perf_counter()
        try:
            with self._tracing.stage(stage):
                yield
        except BaseException as error:
            self._metrics.stage_errors.labels(stage, reason_of(error)).inc()
            raise
        finally:
            took = time.perf_counter() - started
            self.timings[stage] = self.timings.get(stage, 0.0) + took
            self._metrics.stage.labels(stage).observe(took)

    async def required(self, stage: Stage, work: Callable[[Deadline], Awaitable[T]]) -> T:
        """Run a required stage; its errors are raised."""
        self.deadline.check(stage)
        with self.time(stage):
            return await self.deadline.within(stage, work(self.deadline))

    async def optional(self, stage: Stage, work: Callable[[Deadline], Awaitable[T]]) -> T | None:
        """Run an optional stage. Returns None and records a degradation if it fails or takes too long.

        So do errors that nobody expected, of whatever type; they are logged with their traceback. InvalidInput is
        raised: the caller can mend it.
        """
        try:
            self._optional.check(stage)
            with self.time(stage):
                return await self._optional.within(stage, work(self._optional))
        except Exception as error:
            self._left_out(stage, error)
        return None

    async def part(self, stage: Stage, work: Awaitable[T]) -> T | None:
        """Await a part that a stage which is running can do without. For failures see `optional`.

        It counts as the stage's failure, but the stage goes on, and its time and span are those of all its parts.
        """
        try:
            return await work
        except Exception as error:
            self._metrics.stage_errors.labels(stage, reason_of(error)).inc()
            self._left_out(stage, error)
        return None

    def _left_out(self, stage: Stage, error: Exception) -> None:
        if isinstance(error, InvalidInput):
            raise error
        if isinstance(error, LandseerError):
            self.degrade(stage, f"{error.reason}: {error}")
            log.info("answered without %s: %s", stage, error)
        else:
            self.degrade(stage, f"{reason_of(error)}: {unexpected_error()}")
            log.error("answered without %s, which failed unexpectedly", stage, exc_info=error)

    def degrade(self, stage: Stage, why: str) -> None:
        """Record that the answer lacks a stage, or a part of what it should have looked at."""
        if stage not in self.degradations:
            self._metrics.degraded.labels(stage).inc()
        self.degradations[stage] = why
