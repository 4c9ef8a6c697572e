"""The memory of a process."""

from __future__ import annotations

from pathlib import Path

from landseer.ops import machine


def own_memory(pid: int) -> int:
    """Return the bytes that a process has of its own, without pages of files that it mapped; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int((machine.field(status, "RssAnon") or "0").split()[0]) * 1024
