"""The steps of a long measurement: one that fails or is interrupted leaves the results of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from landseer.client.errors import LandseerClientError
from landseer.client.readable import one_line
from landseer.ensemble.errors import LandseerError
from landseer.ops.errors import OpsError

FAILURES = (OpsError, LandseerError, LandseerClientError, OSError, ValueError, MemoryError)
NOT_REACHED = "not reached: the run ended before, or what it needs failed"
INTERRUPTED = "interrupted"


class Steps:
    """Which steps are still missing, and why."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        after: Callable[[], None],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """names: of all steps; after: called after each step, to write what is known.

        say tells of a finished step, warn of one that failed.
        """
        self.missing: dict[str, str] = dict.fromkeys(names, NOT_REACHED)
        self._after, self._say, self._warn = after, say, warn

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run a step and tell how long it took. A failure is noted and told, not raised; Ctrl-C is noted and raised."""
        begun = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.missing[name] = INTERRUPTED
            raise
        except FAILURES as error:
            self.missing[name] = one_line(str(error)) or type(error).__name__
            self._warn(f"{name}: {self.missing[name]}")
        else:
            self.missing.pop(name, None)
            self._say(f"{name}: done in {time.monotonic() - begun:,.0f} s")
        finally:
            self._after()
