"""The history of a store under concurrent callers, while the orchestrator is killed and its clock jumps."""

from __future__ import annotations

import random
import time

from landseer.ops.chaos.clock_fault import ClockJump
from landseer.ops.chaos.history import Recorder, Verdict
from landseer.ops.chaos.pictures import pictures
from landseer.ops.chaos.scene import Scene
from landseer.ops.errors import OpsError

KILL_EVERY_S = 5.0
"""Seconds between two kills, on average, beside those that a start takes."""
JUMP_S = 3600
IMAGES = 8


def what_happened() -> str:
    """Describe for the report what happens while a history is recorded."""
    return (
        f"the orchestrator was killed at random moments, about {KILL_EVERY_S:g} s after each start, and its clock "
        "jumped an hour forward or back before each kill"
    )


def history_trial(scene: Scene, *, seconds: float, seed: int = 0, clock: bool = True) -> Verdict:
    """Record a history for so many seconds, and check it. clock: whether the clock jumps, which needs libfaketime."""
    draws, jump = random.Random(seed), ClockJump(JUMP_S)
    if clock:
        jump.prepare(scene)
    try:
        with Recorder(scene.address, pictures(IMAGES), seed=seed) as history:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(draws.uniform(0.5, 1.5) * KILL_EVERY_S / 2)
                if clock:
                    draws.choice((jump.inject, jump.heal))(scene)
                time.sleep(draws.uniform(0.5, 1.5) * KILL_EVERY_S / 2)
                killed = scene.orchestrator.pid
                scene.kill(scene.orchestrator)
                scene.wait_ready(lambda: scene.orchestrator, other_than=killed)
            time.sleep(KILL_EVERY_S / 2)
    finally:
        if clock:
            jump.clear_up(scene)
    found = history.verdict()
    if not found.operations:
        raise OpsError("no operation of the history was recorded; see the orchestrator's log")
    return found
