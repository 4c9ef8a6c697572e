import asyncio

import pytest

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import DeadlinePassed, Overloaded
from landseer.ensemble.search.admission import PATIENCE, Admission, Lane
from landseer.ensemble.telemetry.metrics import Metrics


class Door:
    """Tasks that take a turn, record it, and hold it until released."""

    def __init__(self, *, running: int, waiting: int = 8) -> None:
        self.admission = Admission(running=running, metrics=Metrics())
        self.first = self.admission.lane("search", waiting=waiting)
        self.second = self.admission.lane("bulk", waiting=waiting)
        self.inside: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}

    async def enter(self, lane: Lane, name: str, deadline: Deadline = Deadline()) -> None:  # noqa: B008
        self.leave[name] = asyncio.Event()
        async with lane.turn(deadline):
            self.inside.append(name)
            await self.leave[name].wait()

    async def start(self, lane: Lane, *names: str) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self.enter(lane, name)) for name in names]
        await settle()
        return tasks


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_bound_run_and_the_rest_follow_in_order() -> None:
    door = Door(running=2)
    tasks = await door.start(door.first, "a", "b", "c", "d")
    assert door.inside == ["a", "b"]
    for name in "abcd":
        door.leave[name].set()
        await settle()
    assert door.inside == ["a", "b", "c", "d"]
    await asyncio.gather(*tasks)


async def test_the_first_lane_goes_before_the_second() -> None:
    door = Door(running=1)
    await door.start(door.first, "running")
    tasks = await door.start(door.second, "bulk")
    tasks += await door.start(door.first, "search")
    door.leave["running"].set()
    await settle()
    assert door.inside == ["running", "search"]
    door.leave["search"].set()
    await settle()
    assert door.inside[-1] == "bulk"
    door.leave["bulk"].set()
    await asyncio.gather(*tasks)


async def test_the_second_lane_is_not_passed_by_for_ever() -> None:
    door = Door(running=1, waiting=40)
    tasks = await door.start(door.first, "running")
    tasks += await door.start(door.second, "bulk 1", "bulk 2")
    tasks += await door.start(door.first, *(f"search {number}" for number in range(20)))
    while not all(task.done() for task in tasks):
        door.leave[door.inside[-1]].set()
        await settle()
    assert door.inside.index("bulk 1") == 1 + PATIENCE
    assert door.inside.index("bulk 2") == 2 + 2 * PATIENCE


async def test_what_ends_a_request_goes_first_and_the_last_lane_still_gets_its_turns() -> None:
    door = Door(running=1, waiting=40)
    last = door.admission.lane("upload", waiting=40)
    tasks = await door.start(door.first, "running")
    tasks += await door.start(last, "upload")
    tasks += await door.start(door.second, *(f"search {number}" for number in range(20)))
    tasks += await door.start(door.first, "stage")
    while not all(task.done() for task in tasks):
        door.leave[door.inside[-1]].set()
        await settle()
    assert door.inside[:3] == ["running", "stage", "search 0"]
    assert door.inside.index("upload") == 1 + PATIENCE


async def test_too_many_waiting_is_overloaded_at_once() -> None:
    door = Door(running=1, waiting=1)
    tasks = await door.start(door.first, "a", "b")
    with pytest.raises(Overloaded, match="1 search requests are already waiting"):
        await door.enter(door.first, "c")
    for task in tasks:
        task.cancel()


async def test_the_cancelled_are_dropped_and_cost_no_turn() -> None:
    door = Door(running=1)
    tasks = await door.start(door.first, "a", "b", "c")
    tasks[1].cancel()
    await settle()
    door.leave["a"].set()
    await settle()
    assert door.inside == ["a", "c"]
    door.leave["c"].set()
    await tasks[2]
    await door.start(door.first, "again")
    assert door.inside[-1] == "again"


async def test_cancelled_just_as_the_turn_comes_gives_it_on() -> None:
    door = Door(running=1)
    tasks = await door.start(door.first, "a", "b", "c")
    door.leave["a"].set()
    await asyncio.sleep(0)  # a leaves, which gives b the turn, but b has not run yet
    tasks[1].cancel()
    await settle()
    assert door.inside == ["a", "c"]
    door.leave["c"].set()
    await tasks[2]


async def test_the_deadline_ends_the_wait() -> None:
    door = Door(running=1)
    await door.start(door.first, "a")
    with pytest.raises(DeadlinePassed, match="the wait for Triton"):
        await door.enter(door.first, "late", Deadline.after(0.01))
    door.leave["a"].set()
    await settle()
    await door.start(door.first, "next")
    assert door.inside == ["a", "next"]
