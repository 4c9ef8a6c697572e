"""Bounded thread pools for work that would block the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from landseer.ensemble.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A pool of threads with a bounded queue."""

    def __init__(self, name: str, *, threads: int, queue: int = 256) -> None:
        self._name = name
        self._most = threads + queue
        self._busy = 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"landseer-{name}")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on a thread of the pool, in the caller's context. Overloaded if the queue is full.

        Work that has not started is dropped when the caller is cancelled; work that has started runs to its end.
        """
        if self._busy >= self._most:
            raise Overloaded(f"{self._busy} tasks already wait for the {self._name} threads; try again later")
        self._busy += 1
        try:
            call = functools.partial(contextvars.copy_context().run, work, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._pool.shutdown(wait=True, cancel_futures=True)
