"""Deadlines by the clocks of two machines that do not agree."""

from __future__ import annotations

import json
import math

import pytest

from landseer.ops.backend.deadlines import MOST_CLOCKS, TIMEOUT_PARAMETER, WINDOW_S, Deadlines


def parameters(sent, timeout=3.0, *, clock="a"):
    return json.dumps({TIMEOUT_PARAMETER: f"{clock} {int(sent * 1e6)} {int(timeout * 1e6)}"})


@pytest.mark.parametrize("apart", [0.0, 2.0, -2.0, 1e9, -1e9])
def test_clocks_need_not_agree(apart):
    """A request that waited for 2 s of its 3 has one left; one that waited for 4 is late."""
    deadlines = Deadlines()
    assert deadlines.of(parameters(1000.0), now=1000.0 + apart) == pytest.approx(1003.0 + apart)
    assert deadlines.of(parameters(1010.0), now=1012.0 + apart) == pytest.approx(1013.0 + apart)
    assert deadlines.of(parameters(1020.0), now=1024.0 + apart) == pytest.approx(1023.0 + apart)


def test_the_first_request_is_never_late():
    assert Deadlines().of(parameters(0.0, 0.001), now=5000.0) > 5000.0


def test_no_request_is_dropped_early_though_the_first_ones_wait():
    deadlines = Deadlines()
    for sent, arrived in ((0.0, 9.0), (1.0, 5.0), (2.0, 2.1), (3.0, 3.4)):
        assert deadlines.of(parameters(sent), now=arrived) >= sent + 3.0
    assert deadlines.of(parameters(4.0), now=5.0) == pytest.approx(7.1)


@pytest.mark.parametrize("idle", [0.0, 10 * WINDOW_S])
def test_a_clock_that_stopped_for_an_hour_is_believed_again(idle):
    deadlines = Deadlines()
    deadlines.of(parameters(0.0), now=0.0)
    late = [deadlines.of(parameters(idle + second), now=idle + second + 3600.0) for second in range(150)]
    assert late[-1] == pytest.approx(idle + 149 + 3600.0 + 3.0)


def test_callers_have_their_own_clocks_and_few_are_remembered():
    deadlines = Deadlines()
    for number in range(MOST_CLOCKS + 5):
        assert deadlines.of(parameters(0.0, clock=f"c{number}"), now=100.0 * number) == 100.0 * number + 3.0
    assert len(deadlines._clocks) == MOST_CLOCKS


UNREADABLE = [json.dumps({TIMEOUT_PARAMETER: said}) for said in ("soon", 3, "a b c")]


@pytest.mark.parametrize("said", ["", '{"other": 1}', *UNREADABLE])
def test_a_request_without_one_waits_for_ever(said):
    assert Deadlines().of(said, now=1.0) == math.inf
