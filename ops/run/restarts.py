"""When to start a server again that has ended, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ops.errors import OpsError


@dataclass(kw_only=True)
class Restarts:
    """Counts one server's ends: waits twice as long after each that comes soon, and gives up after too many."""

    name: str
    most: int = 5
    """Ends in a row, each soon after the start, before giving up."""
    soon_s: float = 60.0
    """A server that ran for longer than this was well; the count begins again."""
    first_delay_s: float = 0.5
    most_delay_s: float = 15.0
    ends: int = 0

    def delay_after(self, lived_s: float, reason: str) -> float:
        """Return the seconds to wait before the next start; OpsError with the last reason when it is pointless."""
        self.ends = 1 if lived_s > self.soon_s else self.ends + 1
        if self.ends >= self.most:
            raise OpsError(f"{self.name} ended {self.ends} times in a row, so it is not started again: {reason}")
        return float(min(self.first_delay_s * 2 ** (self.ends - 1), self.most_delay_s))
