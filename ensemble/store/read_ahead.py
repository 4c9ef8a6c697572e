"""Read-ahead for sequential readers of a file."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

AHEAD, STEP = 256 * 2**20, 8 * 2**20
"""Bytes requested ahead of the reader, and per request."""


class ReadAhead:
    """Requests pages ahead of a reader. It only advises the kernel, so it never changes what is read."""

    def __init__(self, path: Path) -> None:
        """OSError if the file cannot be opened."""
        self._file = os.open(path, os.O_RDONLY)
        self._size, self._asked = os.fstat(self._file).st_size, 0

    def __enter__(self) -> ReadAhead:
        self.reached(0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        os.close(self._file)

    def reached(self, share: float) -> None:
        """Request the pages that follow. share: how much of the file was read, 0 to 1."""
        goal = min(self._size, int(self._size * share) + AHEAD)
        while self._asked < goal:
            count = min(STEP, goal - self._asked)
            os.posix_fadvise(self._file, self._asked, count, os.POSIX_FADV_WILLNEED)
            self._asked += count
