"""When to restart a server that has ended, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ops.errors import OpsError


@dataclass(kw_only=True)
class Restarts:
    """Exponential backoff for one server: the delay doubles after each early end, until too many in a row."""

    name: str
    most: int = 5
    """Early ends in a row before giving up."""
    soon_s: float = 60.0
    """An end within this time after the start is early; a later one resets the count."""
    first_delay_s: float = 0.5
    most_delay_s: float = 15.0
    ends: int = 0

    def delay_after(self, lived_s: float, reason: str) -> float:
        """Return the seconds to wait before the next start; OpsError, with the last reason, to give up."""
        self.ends = 1 if lived_s > self.soon_s else self.ends + 1
        if self.ends >= self.most:
            raise OpsError(f"{self.name} ended {self.ends} times in a row and is not restarted: {reason}")
        return float(min(self.first_delay_s * 2 ** (self.ends - 1), self.most_delay_s))
