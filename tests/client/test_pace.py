from __future__ import annotations

from datetime import datetime, timezone

import pytest

from landseer.client.commands.pace import RECENT_S, Pace

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=timezone.utc)


def paced(total: int, seen: list[tuple[float, int]]) -> Pace:
    moments = iter(seconds for seconds, _ in seen)
    pace = Pace(total, clock=lambda: next(moments), now=lambda: NOON)
    for _, done in seen:
        pace.update(done)
    return pace


def test_what_goes_before_the_first_result_says_nothing_about_the_rate() -> None:
    assert (paced(100, []).rate, paced(100, [(900.0, 10)]).left) == ("", "")
    pace = paced(100, [(900.0, 10), (910.0, 60)])
    assert (pace.rate, pace.left) == ("5.0 per second", "8.0 s left")


def test_the_end_follows_the_rate_of_the_last_minutes() -> None:
    fast = [(float(second), 10 * second) for second in range(0, 1000, 10)]
    slow = [(1000.0 + second, 9990 + second) for second in range(0, int(RECENT_S) + 20, 10)]
    pace = paced(20_000, fast + slow)
    assert pace.rate == "1.0 per second"
    assert pace.left == "2 h 43 min left, until 14:43"


@pytest.mark.parametrize(("left", "until"), [(11 * 3600, "23:00"), (13 * 3600, "Mon 30 Nov 01:00")])
def test_the_day_is_named_if_it_is_not_today(left: int, until: str) -> None:
    said = paced(left + 1, [(0.0, 0), (1.0, 1)]).left
    assert said.rpartition("until ")[2] == until
