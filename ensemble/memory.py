"""How much memory this process may take: less than the machine has, where its container has a limit."""

from __future__ import annotations

import os
from pathlib import Path

from landseer.ensemble.control_groups import CGROUPS, MEMBERSHIP, folders

GIB = 2**30


def memory_limit() -> int:
    """Return the bytes that this process may take: its container's limit, or what the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(machine, container_limit() or machine)


def container_limit(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """Return the memory limit in bytes, the smallest of our control group and those above it; None without any.

    For the arguments see `control_groups.folders`. Version 1 writes "no limit" as a number beyond any memory.
    """
    limits = [_limit(folder) for folder in folders("memory", groups, membership)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return None
