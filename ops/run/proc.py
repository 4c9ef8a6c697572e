"""What /proc tells of processes."""

from __future__ import annotations

from pathlib import Path


def dead_children(parent: int) -> set[int]:
    """Return the children of a process that have ended without its taking notice: its zombies."""
    return {pid for pid, (state, ppid) in _all().items() if ppid == parent and state == "Z"}


def _all() -> dict[int, tuple[str, int]]:
    """Return state and parent of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in parentheses, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(folder.name)] = (fields[0], int(fields[1]))
    return found
