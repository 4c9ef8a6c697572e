from __future__ import annotations

import asyncio
import threading

import pytest

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import DeadlinePassed, Overloaded
from landseer.ensemble.workers import Workers


async def test_no_deadline_never_passes():
    deadline = Deadline.after(None)
    deadline.check("search")
    assert deadline.remaining() is None
    assert deadline.sooner(10) == deadline
    assert await deadline.within("search", asyncio.sleep(0, "done")) == "done"


async def test_a_deadline_cancels_running_work_and_names_the_stage():
    cancelled = asyncio.Event()

    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(DeadlinePassed, match="during rerank"):
        await Deadline.after(0.05).within("rerank", work())
    await asyncio.wait_for(cancelled.wait(), 1.0)


async def test_a_cancellation_is_never_lost():
    """Even one that arrives just as the work ends."""
    ended = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Deadline.after(5.0).within("search", ended))
    await asyncio.sleep(0.01)
    ended.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_passed_deadline_fails_its_check():
    with pytest.raises(DeadlinePassed, match="left for search"):
        Deadline.after(1.0).sooner(2.0).check("search")


async def test_work_that_waits_is_dropped_with_its_caller():
    workers, gate, done = Workers("test", threads=1), threading.Event(), []
    first = asyncio.create_task(workers.run(gate.wait))
    second = asyncio.create_task(workers.run(done.append, 1))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await workers.run(int)
    workers.close()
    assert done == []


async def test_a_full_queue_is_overload():
    workers, gate = Workers("test", threads=1, queue=1), threading.Event()
    waiting = [asyncio.create_task(workers.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded, match="2 tasks already wait"):
        await workers.run(int)
    gate.set()
    await asyncio.gather(*waiting)
    workers.close()
