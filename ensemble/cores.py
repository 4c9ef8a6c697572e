"""How many cores this process may use: fewer than the machine has, where it is bound to some or has a quota.

A container with a limit of 2 CPUs on a machine of 64 cores sees all 64. Threads beyond its quota only wait for each
other: the kernel stops the whole container until the next period, 100 ms as a rule.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from landseer.ensemble.control_groups import CGROUPS, MEMBERSHIP, folders


def cores() -> int:
    """Return the number of cores that this process may use, by affinity and by quota, rounded up."""
    bound, quota = len(os.sched_getaffinity(0)), cpu_quota()
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def cpu_quota(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Return the CPU quota in cores, the smallest of our control group and those above it; None without any.

    groups: where control groups are mounted, of version 1 or 2; membership: our groups, as Linux lists them.
    """
    quotas = [_quota(folder) for folder in folders("cpu", groups, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            share, period = (folder / "cpu.max").read_text().split()
        else:
            share, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        quota = int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max": no limit
        return None
    return quota if quota > 0 else None
