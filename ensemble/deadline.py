"""Deadlines of requests, and awaiting with a timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from landseer.ensemble.errors import DeadlinePassed

T = TypeVar("T")


async def bounded(work: Awaitable[T], timeout_s: float | None) -> T:
    """Await `work`, cancelled after `timeout_s` or with the caller. asyncio.TimeoutError.

    Replaces `asyncio.wait_for`, which before Python 3.12 loses a cancellation that arrives just as the work ends.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise asyncio.TimeoutError
    return task.result()


def _abandon(task: asyncio.Future[T]) -> None:
    """Cancel, and retrieve the outcome so that asyncio does not warn about an exception that was never retrieved."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    task.cancel()


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, or no deadline."""

    at: float | None = None
    """Seconds of `time.monotonic`; None for no deadline."""

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline `seconds` from now; None for none."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def remaining(self) -> float | None:
        """Seconds left, never below 0; None without a deadline."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float) -> Deadline:
        """Return the deadline `seconds` before this one."""
        return self if self.at is None else Deadline(self.at - seconds)

    def check(self, stage: str) -> None:
        """DeadlinePassed if no time is left for `stage`."""
        if self.remaining() == 0.0:
            raise DeadlinePassed(f"no time was left for {stage}; set a longer deadline")

    async def within(self, stage: str, work: Awaitable[T]) -> T:
        """Await `work`, cancelled when the deadline passes. DeadlinePassed names `stage`."""
        try:
            return await bounded(work, self.remaining())
        except asyncio.TimeoutError as error:
            raise DeadlinePassed(f"the deadline passed during {stage}; set a longer one") from error
