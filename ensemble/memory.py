"""How much memory this process may take: less than the machine has, where its container has a limit."""

from __future__ import annotations

import contextlib
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


def memory_left(
    groups: Path = CGROUPS, membership: Path = MEMBERSHIP, machine: Path = Path("/proc/meminfo")
) -> int | None:
    """Return the bytes that may still be taken before the machine or a container is out of memory; None if unknown.

    Pages of files that Linux can drop count as free. For the arguments see `control_groups.folders`; machine: what the
    machine says.
    """
    left = [_left(folder) for folder in folders("memory", groups, membership)]
    with contextlib.suppress(OSError, ValueError, KeyError):  # not Linux
        left.append(1024 * _figures(machine)["MemAvailable:"])
    return min((one for one in left if one is not None), default=None)


def _left(folder: Path) -> int | None:
    """Return what is left of the limit of one control group; None without any."""
    limit = _limit(folder)
    if limit is None:
        return None
    for name in ("memory.current", "memory.usage_in_bytes"):
        try:
            used = int((folder / name).read_text())
            dropped = _figures(folder / "memory.stat")
        except (OSError, ValueError):
            continue
        return limit - used + dropped.get("inactive_file", 0) + dropped.get("active_file", 0)
    return None


def _figures(file: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number on each line."""
    return {words[0]: int(words[1]) for line in file.read_text().splitlines() if len(words := line.split()) > 1}


def _limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return None
