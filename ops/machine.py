"""The machine that a benchmark or a training ran on, as its report describes it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
"""The processor's features that make a graph faster or slower."""
PACKAGES = ("nvidia-pytriton", "openvino", "onnxruntime", "tritonclient", "grpcio", "faiss-cpu", "numpy", "torch")
CPUINFO = Path("/proc/cpuinfo")


def describe(*, threads: int) -> list[tuple[str, str]]:
    """Return the rows of the report's table: name, value. threads: the number of cores that both sides may use."""
    return [
        ("processor", processor()),
        ("cores used", f"{threads} of {os.cpu_count()}, the same for all (`os.sched_getaffinity`)"),
        ("features", features(field(CPUINFO.read_text(), "flags"))),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"),
        ("system", f"Linux {platform.release()}, Python {platform.python_version()}"),
        ("versions", versions(PACKAGES)),
    ]


def processor() -> str:
    """Return the name of the processor, or its architecture if the system does not tell the name."""
    return field(CPUINFO.read_text(), "model name") or platform.machine()


def field(text: str, name: str) -> str:
    """Return the value of the first line `name : value`, empty if there is none."""
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return ""


def features(flags: str) -> str:
    """Return which of FEATURES are among the processor's flags, and which are missing."""
    there = set(flags.split())
    has, lacks = ([name for name in FEATURES if (name in there) is wanted] for wanted in (True, False))
    return f"{', '.join(has) or 'none of those that matter'}" + (f"; not {', '.join(lacks)}" if lacks else "")


def versions(packages: Iterable[str]) -> str:
    """Return the names and versions of the installed ones among `packages`."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
