"""Delay Ctrl-C to the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Delay SIGINT while a block must finish; a second SIGINT is not delayed.

    Has no effect outside the main thread, where Python allows no handlers.
    """

    def __init__(self) -> None:
        self.torn = False
        """Whether a block was interrupted before its end."""
        self._holding = self._asked = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay KeyboardInterrupt to the end of the block."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._holding and not self._asked:
            self._asked = True
            return
        self.torn = self._holding
        raise KeyboardInterrupt
