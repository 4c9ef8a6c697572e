"""The machine that a benchmark ran on, as its report describes it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
"""Of the processor, those that matter to a graph."""
PACKAGES = ("nvidia-pytriton", "openvino", "onnxruntime", "tritonclient", "grpcio", "faiss-cpu", "numpy", "torch")
CPUINFO, MEMINFO, STAT = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/proc/stat")


def describe(*, threads: int) -> list[tuple[str, str]]:
    """Return what is to be said, by name. threads: how many cores both sides may use."""
    cpu, memory = CPUINFO.read_text(), MEMINFO.read_text()
    return [
        ("processor", field(cpu, "model name") or platform.machine()),
        ("cores used", f"{threads} of {os.cpu_count()}, the same for all (`os.sched_getaffinity`)"),
        ("features", features(field(cpu, "flags"))),
        ("memory", f"{int(field(memory, 'MemTotal').split()[0]) / 2**20:.0f} GiB"),
        ("system", f"Linux {platform.release()}, Python {platform.python_version()}"),
        ("versions", versions(PACKAGES)),
    ]


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """How long the cores have worked, in seconds of one core."""

    when: float
    busy: float
    """All of them together, what a hypervisor took from them included."""
    ours: float
    """For the benchmark and the servers that it started."""

    def others_since(self, before: CpuTime) -> float:
        """Return the share of all cores, 0 to 1, that went to other programs."""
        spent = (self.busy - before.busy) - (self.ours - before.ours)
        return max(0.0, spent / ((self.when - before.when) * (os.cpu_count() or 1)))


def cpu_time(sessions: Collection[int]) -> CpuTime:
    """Read the time of this process and of all processes in those sessions, which the servers lead."""
    user, nice, system, _, _, irq, soft, steal = map(int, STAT.read_text().split()[1:9])
    ours = sum(_ticks(folder, sessions) for folder in STAT.parent.glob("[0-9]*"))
    tick = os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + soft + steal
    return CpuTime(when=time.monotonic(), busy=busy / tick, ours=ours / tick)


def _ticks(folder: Path, sessions: Collection[int]) -> int:
    """Return what a process has used if it is ours, 0 if not or if it has just ended."""
    try:
        words = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # proc(5): session is field 6; utime and stime are 14 and 15. The first two come before the words.
    is_ours = int(words[3]) in sessions or int(folder.name) == os.getpid()
    return int(words[11]) + int(words[12]) if is_ours else 0


def field(text: str, name: str) -> str:
    """Return the value of the first line `name : value`, empty if there is none."""
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return ""


def features(flags: str) -> str:
    """Return those of the processor's flags that matter, and those that it lacks."""
    there = set(flags.split())
    has, lacks = ([name for name in FEATURES if (name in there) is wanted] for wanted in (True, False))
    return f"{', '.join(has) or 'none of those that matter'}" + (f"; not {', '.join(lacks)}" if lacks else "")


def versions(packages: Iterable[str]) -> str:
    """Return names and versions of those packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
