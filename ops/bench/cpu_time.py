"""How busy the machine was during a benchmark, and with what."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """CPU time so far, in core-seconds."""

    when: float
    busy: float
    """Of all cores, including what the hypervisor took from them (steal)."""
    ours: float
    """Of the benchmark and the servers that it started."""

    def others_since(self, before: CpuTime) -> float:
        """Return the share of all cores, 0 to 1, that other programs have used since `before`."""
        spent = (self.busy - before.busy) - (self.ours - before.ours)
        return max(0.0, spent / ((self.when - before.when) * (os.cpu_count() or 1)))


def cpu_time(sessions: Collection[int]) -> CpuTime:
    """Read the CPU time of the machine, of this process, and of all processes in `sessions`, which the servers lead."""
    cores = psutil.cpu_times()
    busy = cores.user + cores.nice + cores.system + cores.irq + cores.softirq + cores.steal
    return CpuTime(when=time.monotonic(), busy=busy, ours=sum(_seconds(pid, sessions) for pid in psutil.pids()))


def _seconds(pid: int, sessions: Collection[int]) -> float:
    """Return the CPU time of a process of ours with its children that ended; 0 for others, and if it has just ended."""
    try:
        if pid != os.getpid() and os.getsid(pid) not in sessions:
            return 0.0
        spent = psutil.Process(pid).cpu_times()
    except (ProcessLookupError, psutil.NoSuchProcess):
        return 0.0
    # A server that was started and stopped meanwhile is in no session any more.
    return float(spent.user + spent.system + spent.children_user + spent.children_system)
