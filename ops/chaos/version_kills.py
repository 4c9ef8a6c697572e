"""The orchestrator killed at random instants of merges and swaps, while it is written to, searched and backed up."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.index.manifest import VersionDamaged
from landseer.ensemble.index.versions import Versions
from landseer.ensemble.store.store import Store
from landseer.ops.chaos import tripwires
from landseer.ops.chaos.album import PATIENCE_S, Album
from landseer.ops.chaos.callers import Callers
from landseer.ops.chaos.calls import Calls, said
from landseer.ops.chaos.scene import Scene
from landseer.ops.chaos.version_faults import MERGING

ROUND = 10
"""Kills after which everything is looked up."""
AT_RANDOM = "at a random moment"
LONGEST_S = 3.0
"""A kill at a random moment comes at most so long after the server is ready: a merge is under way or done by then."""
STAGE_S = 30.0
PAUSE_S = 1.0
"""Between two backups."""
WELL_S = 60.0


@dataclass(kw_only=True)
class VersionKills:
    """What was killed, and what was found afterwards."""

    places: Counter[str] = field(default_factory=Counter)
    """Kills by the stage of the merge."""
    versions: int = 0
    """Index versions that were published."""
    backups: int = 0
    """Backups that ended meanwhile."""
    seen: str = ""
    """What callers saw."""
    faults: list[str] = field(default_factory=list)
    """Lost changes, wrong answers, damage: one sentence each."""


class Backups:
    """Backs a store up, again and again, while its block runs."""

    def __init__(self, store: Path, folder: Path) -> None:
        self._store, self._folder = store, folder
        self.done: list[Path] = []
        self.faults: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Backups:
        self._folder.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._over.wait(PAUSE_S):
            target = self._folder / str(len(self.done))
            if why := landseer("backup", self._store, target):
                self.faults.append(f"a backup failed: {why}")
                return
            self.done.append(target)


def version_kills(scene: Scene, album: Album, *, count: int, seed: int = 0) -> VersionKills:
    """Kill the orchestrator so many times. OpsError if it does not come back."""
    former, draws, found, calls = scene.store, random.Random(seed), VersionKills(), Calls()
    scene.serve(store=scene.folder / "killed", extra_args=MERGING)
    try:
        with Backups(scene.store, scene.folder / "backups") as backups:
            for first in range(0, count, ROUND):
                _round(scene, album, draws, found, calls, kills=min(ROUND, count - first))
        found.backups, found.seen = len(backups.done), said(calls.made, calls.degraded)
        found.faults += [*calls.wrong, *backups.faults]
        found.faults += scene.between(lambda: [*_damaged(scene.store, found), *_restored(backups, scene.folder)])
    finally:
        scene.serve(store=former, extra_args=())
    return found


def _round(scene: Scene, album: Album, draws: random.Random, found: VersionKills, calls: Calls, *, kills: int) -> None:
    with BlockingSearchClient(scene.address, timeout=30.0, patience=PATIENCE_S) as client:
        album.anchor(client)
    crashes = len(scene.crashes)
    with Callers(scene.address, album, writers=2) as callers:
        for _ in range(kills):
            callers.wait_well(since=time.monotonic(), times=1, timeout_s=WELL_S)
            killed = scene.orchestrator.pid
            found.places[_kill(scene, draws)] += 1
            scene.wait_ready(lambda: scene.orchestrator, other_than=killed)
    found.faults += [*album.missing(scene.address), *scene.crashes[crashes:]]
    album.tidy(scene.address)
    calls.made += callers.calls.made
    calls.wrong += callers.calls.wrong
    calls.degraded += callers.calls.degraded


def _kill(scene: Scene, draws: random.Random) -> str:
    """Kill the orchestrator at a stage of a merge, or at a random moment; return which it was."""
    stage = draws.choice((AT_RANDOM, *tripwires.MERGE_STAGES))
    pid = scene.orchestrator.pid
    scene.expected.add(pid)
    if stage == AT_RANDOM:
        time.sleep(draws.uniform(0, LONGEST_S))
    else:
        tripwires.arm(scene.folder, stage, 9)
        until = time.monotonic() + STAGE_S
        while tripwires.is_armed(scene.folder) and time.monotonic() < until:
            time.sleep(0.02)
        if not tripwires.is_armed(scene.folder):
            return stage
        tripwires.disarm(scene.folder)
    scene.kill(scene.orchestrator)
    return AT_RANDOM


def _damaged(store: Path, found: VersionKills) -> list[str]:
    """Return which versions are not as they were written; note how many were published."""
    versions, faults = Versions(store), []
    found.versions = max(versions.numbers, default=0)
    for number in versions.numbers:
        try:
            version = versions.read(number)
            version.manifest.check(version.folder)
        except VersionDamaged as error:
            faults.append(f"version {number}: {error}")
    return faults if versions.numbers else ["no index version was left"]


def _restored(backups: Backups, folder: Path) -> Sequence[str]:
    """Restore the last backup, and return what is wrong with it."""
    if not backups.done:
        return ["no backup ended"]
    if why := landseer("restore", backups.done[-1], folder / "restored"):
        return [f"the last backup cannot be restored: {why}"]
    store = Store.open(folder / "restored", fingerprint=None)
    try:
        count = sum(len(keys) for keys, _ in store.metadata.scan())
        return [] if count == store.count() else [f"the restored store reads {count} of {store.count()} pictures"]
    finally:
        store.close()


def landseer(*words: object) -> str:
    """Run a command; return its error, empty without one."""
    command = [sys.executable, "-m", "landseer.client.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"status {done.returncode}"
