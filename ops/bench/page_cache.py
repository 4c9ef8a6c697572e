"""Evicts a file from a process's memory, and counts what the process then reads from the disk.

Reads /proc itself: psutil has neither RssAnon nor VmHWM, and its memory maps come from `smaps`, for which the kernel
walks the page tables of the whole store.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

PAGEOUT = 21
"""MADV_PAGEOUT of <asm-generic/mman-common.h>."""
PROCESS_MADVISE = 440
"""The system call has the same number on all architectures (Linux 5.10)."""


class _Range(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


def evict(pid: int, file: Path) -> None:
    """Evict a file from the memory of a process that maps it, and from the page cache.

    posix_fadvise alone keeps pages that a process has mapped. OSError if the system does not permit it.
    """
    process = os.pidfd_open(pid)
    try:
        for start, length in _mappings(pid, file):
            _page_out(process, start, length)
    finally:
        os.close(process)
    drop(file)


def drop(file: Path) -> None:
    """Evict the pages of a file that no process has mapped from the page cache."""
    opened = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(opened)


def disk_bytes(pid: int) -> int:
    """Return the bytes that a process has read from disks so far, by reads and by touching mapped pages."""
    return _figure(Path(f"/proc/{pid}/io"), "read_bytes")


def memory_bytes(pid: int, name: str) -> int:
    """Return a field of /proc/PID/status that is in kB, such as RssAnon or VmHWM, in bytes."""
    return 1024 * _figure(Path(f"/proc/{pid}/status"), name)


def read_ahead(file: Path) -> str:
    """Return in words how much the system reads ahead around a page of a mapped file."""
    device = file.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for folder in (block, block.parent):  # a partition's queue is that of its disk
        if (told := folder / "queue" / "read_ahead_kb").exists():
            return f"up to {int(told.read_text()):,} KiB"
    return "unknown"


def _figure(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise OSError(f"{path} has no field {name}")


def _mappings(pid: int, file: Path) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(f" {file.resolve()}"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            yield start, end - start


def _page_out(process: int, start: int, length: int) -> None:
    """Page out a range. The kernel takes at most 2 GiB per call and returns how much it took."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    while length > 0:
        part = _Range(start, length)
        taken = libc.syscall(PROCESS_MADVISE, process, ctypes.byref(part), 1, PAGEOUT, 0)
        if taken <= 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot evict the store's pages from memory: {os.strerror(code)}")
        start, length = start + taken, length - taken
