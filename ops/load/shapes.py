"""How the number of users changes during a load test: a plan is a function of the elapsed share of the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Plan = Callable[[float, int], int]
"""(elapsed share of the time, 0 to 1; maximum number of users) -> users."""

STEPS = 8
"""Number of steps of a ramp."""


def steady(gone: float, peak: int) -> int:
    """Return the peak throughout."""
    return peak


def ramp(gone: float, peak: int) -> int:
    """Rise from one user to the peak in steps of equal length and ratio; saturation is where a step adds nothing."""
    steps = ramp_users(peak)
    return steps[min(int(gone * len(steps)), len(steps) - 1)]


def ramp_users(peak: int) -> list[int]:
    """Return the users of each step of a ramp, each about 1.4 to 2 times the previous one."""
    count = min(STEPS, peak)
    if count == 1:
        return [1]
    return sorted({round(math.exp(step * math.log(peak) / (count - 1))) for step in range(count)})


def spike(gone: float, peak: int) -> int:
    """Run a quarter of the peak, with the full peak in the middle fifth of the time."""
    return peak if 0.4 <= gone < 0.6 else max(1, peak // 4)


def soak(gone: float, peak: int) -> int:
    """Run half of the peak throughout: leaks show only over time."""
    return max(1, peak // 2)


SHAPES: Mapping[str, Plan] = {"steady": steady, "ramp": ramp, "spike": spike, "soak": soak}
