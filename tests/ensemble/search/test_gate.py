"""The gate of a kind of request, on a clock of its own."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import DeadlinePassed, Overloaded
from landseer.ensemble.search.gate import FIRST_GUESS_S, MARGIN, OVER_S, Gate
from landseer.ensemble.telemetry.metrics import Metrics

NONE = Deadline()


class Street:
    """A gate, its clock, and the requests inside."""

    def __init__(self, *, most: int = 8, refuse_after_s: float | None = None, at_once: int = 2) -> None:
        self.now = 100.0
        self.metrics = Metrics()
        self.gate = Gate(
            "search",
            most=most,
            refuse_after_s=refuse_after_s,
            at_once=at_once,
            metrics=self.metrics,
            clock=lambda: self.now,
        )
        self.inside: list[ExitStack] = []

    def enter(self, deadline: Deadline = NONE) -> None:
        one = ExitStack()
        one.enter_context(self.gate.admitted(deadline))
        self.inside.append(one)

    def leave(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.inside.pop(0).close()

    def learn(self, seconds: float) -> None:
        """Measure requests that take `seconds` until nothing is left of the first guess."""
        for _ in range(100):
            self.enter()
            self.leave(seconds)

    def shed(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("landseer_shed_total", {"lane": "search", "reason": reason}) or 0


@pytest.mark.parametrize("together", [1, 4])
def test_the_time_of_one_is_measured_alone_and_beside_others(together):
    street = Street()
    for _ in range(100 + together):
        if len(street.inside) == together:
            street.leave(after_s=0.2)
        street.enter()
    # In turns, one leaves every 0.2 s, whether one or four are inside.
    assert street.gate.expected_s == pytest.approx((together + 1) * 0.2, rel=0.02)


def test_what_cannot_be_done_before_its_deadline_is_refused_at_once_and_told_when():
    street = Street()
    street.learn(0.4)
    street.enter()
    street.enter()
    with pytest.raises(Overloaded, match=r"would take 1\.2 s now, and the deadline leaves 1\.0 s") as refused:
        street.enter(Deadline(street.now + 1.0))
    assert refused.value.retry_after_s == pytest.approx(0.5)
    assert street.shed("deadline") == 1
    street.enter(Deadline(street.now + MARGIN * 3 * 0.4 + 0.01))


def test_many_refused_callers_are_asked_to_come_back_later_until_one_is_let_in():
    street = Street(most=1)
    street.learn(0.4)

    def pause() -> float:
        with pytest.raises(Overloaded) as refused:
            street.enter()
        return refused.value.retry_after_s or 0.0

    street.enter()
    pauses = [pause() for _ in range(12)]
    assert pauses == pytest.approx([0.8, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.0, 5.0])
    street.leave(0.4)
    street.enter()
    assert pause() == pytest.approx(0.8)


def test_a_line_that_makes_all_late_is_not_joined_though_nobody_set_a_deadline():
    street = Street(refuse_after_s=1.5)
    street.learn(0.4)
    for _ in range(3):
        street.enter()
    with pytest.raises(Overloaded, match=r"longer than 1\.5 s"):
        street.enter()
    assert (street.shed("slow"), len(street.inside)) == (1, 3)
    street.leave(0.4)
    street.enter()


def overloaded(*, at_once: int = 2) -> Street:
    """Return a street where `at_once` are inside, after several were refused."""
    street = Street(refuse_after_s=1.5, at_once=at_once)
    street.learn(0.3)
    for _ in range(20):
        with suppress(Overloaded):
            street.enter()
    while len(street.inside) > at_once:
        street.leave(0.3)
    return street


@pytest.mark.parametrize("at_once", [2, 3])
def test_while_many_are_refused_the_line_is_short(at_once):
    street = overloaded(at_once=at_once)
    for _ in range(20):
        for _ in range(2):
            with pytest.raises(Overloaded, match=r"longer than 0\.5 s while it refuses many") as refused:
                street.enter()
            assert (refused.value.retry_after_s or 0.0) >= 0.3
        street.leave(0.3)
        street.enter()
    assert len(street.inside) == at_once


def test_a_machine_that_is_quick_with_many_at_once_lets_many_in_during_an_overload():
    """As one does that searches for many at a time: how fast it is then must be found out."""
    street = overloaded()
    for _ in range(200):
        while True:
            try:
                street.enter()
            except Overloaded:
                break
        # All that are inside end together, after a time that hardly depends on how many they are.
        street.now += 0.2
        while street.inside:
            street.leave()
    street.enter()
    assert street.gate.expected_s < 0.1


def test_a_burst_may_wait_again_when_those_who_were_refused_have_come():
    street = overloaded()
    for _ in range(20):
        street.leave(0.3)
        street.enter()
    with pytest.raises(Overloaded, match="while it refuses many"):
        street.enter()
    street.now += OVER_S
    for _ in range(3):
        street.enter()


def test_callers_with_too_short_deadlines_shorten_no_line_of_others():
    street = Street(refuse_after_s=1.5)
    street.learn(0.4)
    street.enter()
    for _ in range(50):
        with suppress(Overloaded):
            street.enter(Deadline(street.now + 0.01))
    assert street.shed("deadline") == 50
    street.enter()
    street.enter()


def test_as_many_as_the_machine_works_on_at_once_form_no_line():
    street = Street(most=72, refuse_after_s=1.5, at_once=16)
    street.learn(0.4)
    for _ in range(16):
        street.enter()
    with pytest.raises(Overloaded, match=r"longer than 1\.5 s"):
        street.enter()


def test_no_more_than_the_bound_are_inside():
    street = Street(most=3)
    street.learn(0.001)
    for _ in range(3):
        street.enter()
    with pytest.raises(Overloaded, match="3 search requests are being answered"):
        street.enter()
    assert street.shed("full") == 1


def test_an_idle_machine_tries_whatever_was_measured_before():
    street = Street(refuse_after_s=1.5)
    street.learn(10.0)
    street.enter(Deadline(street.now + 0.5))
    # And with no deadline two are let in: otherwise half of the machine would wait for the other.
    street.enter()
    with pytest.raises(Overloaded):
        street.enter()


def test_before_anything_was_measured_a_crowd_is_not_let_in():
    street = Street(refuse_after_s=1.5)
    admitted = 0
    for _ in range(24):
        with suppress(Overloaded):
            street.enter()
            admitted += 1
    assert admitted == int(1.5 / FIRST_GUESS_S)


def test_failures_that_come_early_do_not_pass_for_speed_and_late_ones_count():
    street = Street()
    street.learn(0.4)
    for _ in range(50):
        with suppress(DeadlinePassed), street.gate.admitted(NONE):
            raise DeadlinePassed("at once")
    assert street.gate.expected_s == pytest.approx(0.4, rel=0.01)
    for _ in range(50):
        with suppress(DeadlinePassed), street.gate.admitted(NONE):
            street.now += 1.0
            raise DeadlinePassed("after a second")
    assert street.gate.expected_s == pytest.approx(1.0, rel=0.05)


def test_one_stall_is_not_taken_for_the_usual():
    street = Street()
    street.learn(0.4)
    street.enter()
    street.leave(60.0)
    assert street.gate.expected_s < 0.6


def simulated(street: Street, *, callers: int, deadline_s: float, each_s: float, seconds: float) -> float:
    """Return answers per second: a machine that takes `each_s` of shared time for each, and callers who come back.

    Callers are cut off at their deadline, as gRPC does, and come back at once; a refused one after its pause.
    """
    end, answered, back = street.now + seconds, 0, [street.now] * callers
    left: list[tuple[float, float, ExitStack]] = []  # (deadline, work left, inside)
    step = 0.01
    while street.now < end:
        street.now += step
        left = [(deadline, work - step / len(left), one) for deadline, work, one in left]
        for deadline, work, one in [gone for gone in left if gone[1] <= 0 or street.now >= gone[0]]:
            left.remove((deadline, work, one))
            if work <= 0:
                answered += 1
                one.close()
            else:
                with suppress(DeadlinePassed), one:
                    raise DeadlinePassed("gone")
            back.append(street.now)
        for due in [due for due in back if due <= street.now]:
            back.remove(due)
            one = ExitStack()
            try:
                one.enter_context(street.gate.admitted(Deadline(street.now + deadline_s)))
            except Overloaded as error:
                back.append(street.now + (error.retry_after_s or 1.0))
            else:
                left.append((street.now + deadline_s, each_s, one))
    return answered / seconds


@pytest.mark.parametrize("refuse_after_s", [1.5, None])
def test_24_callers_with_a_deadline_of_3_s_get_what_the_machine_can_do(refuse_after_s):
    """The collapse that was measured: at 2.6 searches a second 1 of 96 was answered in time."""
    street = Street(most=72, refuse_after_s=refuse_after_s)
    goodput = simulated(street, callers=24, deadline_s=3.0, each_s=1 / 2.6, seconds=60.0)
    assert goodput >= 0.9 * 2.6
