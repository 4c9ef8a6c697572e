"""What every fault has: how it begins, how its cause goes away, and what callers may see."""

from __future__ import annotations

from collections.abc import Sequence

from landseer.ops.chaos.calls import CLEAR, Call
from landseer.ops.chaos.scene import Scene
from landseer.ops.errors import OpsError


class CannotTry(OpsError):
    """This machine lacks what a fault needs; the message says what."""


class Fault:
    """One fault. `inject` returns once it is there, `heal` once its cause is gone."""

    name: str
    hold_s: float = 6.0
    """Seconds between the two."""
    limit_s: float = 5.0
    """Most seconds until every call succeeds again."""
    allowed: frozenset[str] = CLEAR
    """The outcomes that callers may see: names of gRPC codes."""
    writers: int = 1
    note: str = ""
    """What else the report says; set by `heal` or `complaints`."""

    def prepare(self, scene: Scene) -> None:
        """Bring the scene into the state that the fault needs, before the callers begin. CannotTry."""

    def inject(self, scene: Scene) -> None:
        """Cause the fault."""
        raise NotImplementedError

    def heal(self, scene: Scene) -> None:
        """Take the cause away."""
        raise NotImplementedError

    def address(self, scene: Scene) -> str:
        """HOST:PORT that the callers use."""
        return scene.address

    def clear_up(self, scene: Scene) -> None:
        """Remove what `prepare` made; called in any case, with the scene running."""

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Return what else was not as it should be, one sentence each. calls: those that began during the fault."""
        return []
