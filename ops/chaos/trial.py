"""One trial of one fault: callers call while it comes and goes, and each answer and acknowledgement is checked."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from landseer.client.blocking import BlockingSearchClient
from landseer.client.errors import LandseerClientError
from landseer.ops.chaos.album import PATIENCE_S, Album
from landseer.ops.chaos.callers import KINDS, Callers
from landseer.ops.chaos.calls import Calls, said
from landseer.ops.chaos.fault import CannotTry, Fault
from landseer.ops.chaos.scene import Scene
from landseer.ops.errors import OpsError

TIMES = 3
"""Calls of each kind in a row that must succeed before a trial ends."""
WARM_S = 120.0
OVER_S = 45.0
"""Seconds that a trial waits for the recovery."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial found."""

    fault: str
    seen: str
    """What callers saw from the fault to the recovery."""
    recovered_s: float
    """Seconds from the end of the cause until every call succeeded; infinite if that was not seen."""
    limit_s: float
    lost: Sequence[str] = ()
    """Acknowledged changes that are gone."""
    wrong: Sequence[str] = ()
    """Answers that were not true."""
    complaints: Sequence[str] = ()
    """What else was not as it should be."""
    note: str = ""
    skipped: str = ""
    """Why there was no trial."""
    left_out: bool = False
    """Whether the run had no time for it."""

    @property
    def good(self) -> bool:
        """Whether the service kept its promises; a trial that was skipped breaks none."""
        return (bool(self.skipped) and not self.left_out) or (
            self.recovered_s <= self.limit_s and not self.lost and not self.wrong and not self.complaints
        )


def run_trial(scene: Scene, album: Album, fault: Fault) -> Outcome:
    """Try a fault. OpsError if a server cannot be started before or after it."""
    try:
        fault.prepare(scene)
    except CannotTry as error:
        return Outcome(fault=fault.name, seen="", recovered_s=0.0, limit_s=fault.limit_s, skipped=str(error))
    try:
        return _tried(scene, album, fault)
    except (OpsError, LandseerClientError) as error:
        return _failed(fault, str(error))
    finally:
        fault.clear_up(scene)


def _tried(scene: Scene, album: Album, fault: Fault) -> Outcome:
    with BlockingSearchClient(scene.address, timeout=30.0, patience=PATIENCE_S) as client:
        album.anchor(client)
    crashes = len(scene.crashes)
    with Callers(fault.address(scene), album, writers=fault.writers) as callers:
        if not callers.wait_well(since=0.0, times=1, timeout_s=WARM_S):
            return _failed(fault, f"the calls did not succeed before it: {said(callers.calls.made)}")
        began = time.monotonic()
        fault.inject(scene)
        time.sleep(fault.hold_s)
        fault.heal(scene)
        gone = time.monotonic()
        callers.wait_well(since=gone, times=TIMES, timeout_s=OVER_S)
    lost = album.missing(scene.address)
    album.tidy(scene.address)
    return Outcome(
        fault=fault.name,
        seen=said(callers.calls.since(began), callers.calls.degraded),
        recovered_s=callers.calls.recovered_after(gone, KINDS),
        limit_s=fault.limit_s,
        lost=lost,
        wrong=callers.calls.wrong,
        complaints=[
            *fault.complaints(scene, callers.calls.made),
            *_unclear(callers.calls, fault.allowed),
            *scene.crashes[crashes:],
        ],
        note=fault.note,
    )


def left_out(fault: Fault) -> Outcome:
    """Return the outcome of a fault for which a run had no time."""
    return Outcome(
        fault=fault.name,
        seen="",
        recovered_s=math.inf,
        limit_s=fault.limit_s,
        skipped="the run had no time left",
        left_out=True,
    )


def _failed(fault: Fault, why: str) -> Outcome:
    return Outcome(fault=fault.name, seen="", recovered_s=math.inf, limit_s=fault.limit_s, complaints=[why])


def _unclear(calls: Calls, allowed: frozenset[str]) -> list[str]:
    """Return the outcomes that callers should not have seen, one sentence each."""
    kinds = sorted({(call.kind, call.outcome, call.said) for call in calls.made if call.outcome not in allowed})
    return [f"a {kind} failed with {outcome}: {text}" for kind, outcome, text in kinds]


def seconds(recovered_s: float) -> str:
    """Return a recovery for people."""
    return f"{recovered_s:.1f}" if math.isfinite(recovered_s) else f"more than {OVER_S:g}"
