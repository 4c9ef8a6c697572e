"""Asking the system for what a reader that goes through a file in order will want next."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

AHEAD, STEP = 256 * 2**20, 8 * 2**20
"""Bytes that are asked for ahead of the reader, and at a time."""


class ReadAhead:
    """Follows a reader of a file. Advice only: whatever it asks for, the reader finds the same bytes."""

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
        """Ask for what follows, now that the reader has had this share, 0 to 1, of the file."""
        goal = min(self._size, int(self._size * share) + AHEAD)
        while self._asked < goal:
            count = min(STEP, goal - self._asked)
            os.posix_fadvise(self._file, self._asked, count, os.POSIX_FADV_WILLNEED)
            self._asked += count
