"""The client of Triton: which version answers, and what happens to calls that nobody waits for."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_triton import FakeTriton

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import DeadlinePassed, ModelsUnavailable
from landseer.ensemble.inference.triton import Triton, may_crash
from landseer.ensemble.telemetry.metrics import Metrics

IMAGE = {"image": np.zeros((1, 64, 64, 3), np.uint8)}


@pytest.fixture
async def fake():
    running = await FakeTriton().start()
    yield running
    await running.stop()


@pytest.fixture
async def triton(fake):
    client = Triton(fake.address, timeout_s=10.0, metrics=Metrics())
    yield client
    await client.close()


def describe(triton, seconds=None):
    return triton.infer("describe", IMAGE, ["descriptor"], Deadline.after(seconds))


async def until(condition):
    async def wait():
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 10)


@pytest.mark.parametrize(
    ("release", "crashes"),
    [("2.51.0", True), ("2.56.0", True), ("2.57.0", False), ("2.75.0", False), ("3.0.0", False), ("", False)],
)
def test_the_releases_with_the_fault(release, crashes):
    assert may_crash(release) == crashes


@pytest.mark.parametrize(("release", "cancels"), [("2.51.0", False), ("2.75.0", True)])
@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_calls_are_cancelled_only_where_that_crashes_nothing(fake, triton, release, cancels, how):
    fake.release, gate = release, asyncio.Event()
    fake.gates["describe"] = gate
    assert (await triton.served(5.0)).server == release
    call = asyncio.create_task(describe(triton, 1.0 if how == "deadline" else None))
    await until(lambda: len(fake.calls) == 1)
    if how == "cancelled":
        call.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlinePassed):
        await call
    assert fake.ended == [], "neither waits for the answer"
    if not cancels:
        gate.set()
    await until(lambda: fake.cancelled == ["describe"] if cancels else fake.ended == ["describe"])
    assert not (fake.cancelled and fake.ended)


async def test_the_checked_version_is_asked_for(fake, triton):
    fake.version = "7"
    assert (await triton.served(5.0)).versions[0][1] == "7"
    assert (await describe(triton))["descriptor"].shape == (1, 48)
    fake.version = "8"
    with pytest.raises(ModelsUnavailable, match="version 7 is not found"):
        await describe(triton)
    assert triton.replaced.is_set()
    # A check finds the version that is there, even if it is told what was known.
    known = await triton.served(5.0)
    assert known.versions[0][1] == "8" and not triton.replaced.is_set()
    await describe(triton)


async def test_an_answer_of_another_version_is_refused(fake, triton):
    await triton.served(5.0)
    fake.answered_version = "2"
    with pytest.raises(ModelsUnavailable, match="answered with version 2 of `describe`, but version 1 was checked"):
        await describe(triton)
    assert triton.replaced.is_set()
