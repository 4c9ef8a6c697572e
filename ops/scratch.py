"""Temporary folders of long runs, which are removed even if their run was killed: by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

YOUNG_S = 60.0
"""Folders younger than this are left alone: their run may not have locked them yet."""


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Make a folder in the system's temporary one, and remove it at the end, together with those of killed runs.

    A run holds a lock on its folder, which ends with its process, however that ends.
    """
    prefix = f"landseer-scratch-{name}-"
    _sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, _locked(Path(folder)):
        yield Path(folder)


def _sweep(prefix: str) -> None:
    """Remove the folders of runs of this user that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < YOUNG_S:
                continue
            with _locked(folder):
                shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. BlockingIOError if somebody else does; OSError if it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
