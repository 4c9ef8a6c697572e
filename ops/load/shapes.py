"""How the number of users changes in the course of a load test: a plan is a function of the share of time gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Plan = Callable[[float, int], int]
"""(share of the time gone, 0 to 1; most users) -> users."""

STEPS = 8
"""Of a ramp."""


def steady(gone: float, peak: int) -> int:
    """Return the peak throughout."""
    return peak


def ramp(gone: float, peak: int) -> int:
    """Rise from one user to the peak, in steps of equal time and ratio: saturation is the step that adds nothing."""
    steps = ramp_users(peak)
    return steps[min(int(gone * len(steps)), len(steps) - 1)]


def ramp_users(peak: int) -> list[int]:
    """Return the users of each step of a ramp, each about twice or 1.4 times the one before."""
    count = min(STEPS, peak)
    if count == 1:
        return [1]
    return sorted({round(math.exp(step * math.log(peak) / (count - 1))) for step in range(count)})


def spike(gone: float, peak: int) -> int:
    """A quarter of the peak; all of it in the middle fifth of the time; a quarter again."""
    return peak if 0.4 <= gone < 0.6 else max(1, peak // 4)


def soak(gone: float, peak: int) -> int:
    """Half of the peak, for as long as you like: what leaks shows only with time."""
    return max(1, peak // 2)


SHAPES: Mapping[str, Plan] = {"steady": steady, "ramp": ramp, "spike": spike, "soak": soak}
