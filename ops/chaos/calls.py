"""What callers saw: every call with its time and outcome."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from landseer.client.errors import RpcFailed

OK = "OK"
CLEAR = frozenset({OK, "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
"""Outcomes that tell a caller to try again. Any other one is a fault of ours, unless a fault announces it."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call."""

    kind: str
    """search, put, get or delete."""
    began: float
    """By time.monotonic, as `ended`."""
    ended: float
    outcome: str
    """OK, or the name of the gRPC code."""
    said: str = ""
    """The error's message."""


@dataclass(kw_only=True)
class Calls:
    """The calls of a trial. Threads may share it."""

    made: list[Call] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that were not true, one sentence each."""
    degraded: Counter[str] = field(default_factory=Counter)
    """Answers that said that an optional stage was skipped, by stage."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def note(self, kind: str) -> Iterator[None]:
        """Note the call that the block makes; its failure is raised."""
        began, outcome, said = time.monotonic(), OK, ""
        try:
            yield
        except RpcFailed as error:
            outcome, said = error.code.name, f"{error.reason}: {error}"
            raise
        finally:
            with self._lock:
                self.made.append(Call(kind=kind, began=began, ended=time.monotonic(), outcome=outcome, said=said))

    def since(self, when: float) -> list[Call]:
        """Return the calls that began at `when` or later."""
        with self._lock:
            return [call for call in self.made if call.began >= when]

    def recovered_after(self, gone: float, kinds: Sequence[str]) -> float:
        """Return the seconds after `gone` from which every call succeeded, infinite if some kind never did."""
        later = [call for call in self.since(gone) if call.kind in kinds]
        last = max((call.began for call in later if call.outcome != OK), default=-math.inf)
        firsts = [
            min((call.ended for call in later if call.kind == kind and call.began > last), default=math.inf)
            for kind in kinds
        ]
        return max(firsts) - gone


def said(calls: Sequence[Call], degraded: Mapping[str, int] = MappingProxyType({})) -> str:
    """Describe outcomes for people: how many calls of each, and the longest."""
    if not calls:
        return "no calls"
    counts = Counter(call.outcome for call in calls)
    longest = {code: max(call.ended - call.began for call in calls if call.outcome == code) for code in counts}
    parts = [f"{counts[code]} {code} (at most {longest[code]:.1f} s)" for code in sorted(counts, key=lambda c: c != OK)]
    return ", ".join([*parts, *(f"{count} without {stage}" for stage, count in sorted(degraded.items()))])
