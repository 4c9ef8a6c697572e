"""Load batches ahead, in another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

AHEAD = 3
"""Batches that are ready or being loaded."""


@contextmanager
def loaded(load: Callable[[int, Any], Any], plan: Sequence[Any], start: int) -> Iterator[Iterator[Any]]:
    """Iterate over load(number, item) of the plan from `start` on, in order, computed in one other thread."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="load")
    try:
        yield _in_order(pool, load, plan, start)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, load: Callable[[int, Any], Any], plan: Sequence[Any], start: int
) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for number in range(start, len(plan)):
        waiting.append(pool.submit(load, number, plan[number]))
        if len(waiting) == AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
