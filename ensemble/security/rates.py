"""How much a token may use: requests and bytes per second."""

from __future__ import annotations

import time
from collections.abc import Callable

from landseer.ensemble.security.tokens import Token

BURST_S = 2.0
"""A caller that was quiet may use what it left unused in this many seconds at once."""


class Rate:
    """A rate per second that may be exceeded for a moment."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = max(1.0, per_s * BURST_S)
        self._left, self._at = self._most, clock()

    def wait_s(self) -> float:
        """Return how many seconds to wait before more may be used; 0 if none."""
        now = self._clock()
        self._left, self._at = min(self._most, self._left + (now - self._at) * self._per_s), now
        return max(0.0, (min(1.0, self._most) - self._left) / self._per_s)

    def use(self, amount: float) -> None:
        """Count what was used. It may be more than is left: the time to wait grows with it."""
        self._left -= amount


class Allowance:
    """The rates of one token."""

    def __init__(self, token: Token, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = Rate(token.requests_per_s, clock) if token.requests_per_s else None
        self.bytes = Rate(token.bytes_per_s, clock) if token.bytes_per_s else None


class Allowances:
    """The rates of all tokens. A token that changes its limits starts anew."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Token, Allowance]] = {}

    def of(self, token: Token) -> Allowance:
        """Return the allowance of a token."""
        known = self._of.get(token.name)
        if known is None or known[0] != token:
            known = self._of[token.name] = (token, Allowance(token))
        return known[1]
