"""A clock that jumps: libfaketime shifts the orchestrator's time of day, by what a file says."""

from __future__ import annotations

from pathlib import Path

from landseer.ops.chaos.calls import OK
from landseer.ops.chaos.fault import CannotTry, Fault
from landseer.ops.chaos.scene import Scene

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
CACHED_S = 1


class ClockJump(Fault):
    """The orchestrator's wall clock jumps, and jumps back; its monotonic clock goes on, as the kernel's does."""

    allowed = frozenset({OK})

    def __init__(self, seconds: int) -> None:
        self.name = f"clock jumps by {seconds:+,} s, and back"
        self._seconds = seconds

    def prepare(self, scene: Scene) -> None:
        """Start the orchestrator with a clock that can be set; CannotTry without libfaketime."""
        self._former, self._file = dict(scene.orchestrator.config.env), scene.folder / "clock"
        self._set(0)
        scene.serve(env={**self._former, **faked(self._file)})

    def inject(self, scene: Scene) -> None:
        """Jump."""
        self._set(self._seconds)

    def heal(self, scene: Scene) -> None:
        """Jump back."""
        self._set(0)

    def clear_up(self, scene: Scene) -> None:
        """Serve with the machine's clock."""
        scene.serve(env=self._former)

    def _set(self, seconds: int) -> None:
        self._file.write_text(f"{seconds:+d}\n")


def faked(file: Path) -> dict[str, str]:
    """Return the environment of a process whose time of day a file shifts, by seconds such as +60. CannotTry."""
    found = sorted(Path("/").glob(LIBRARIES.lstrip("/")))
    if not found:
        raise CannotTry("no libfaketime; run: apt-get install libfaketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": str(CACHED_S),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
