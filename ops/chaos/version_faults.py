"""Faults of index versions: damaged files, and a disk that fills up while a version is built."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from landseer.ensemble.index.building import MODULE
from landseer.ensemble.index.versions import Versions
from landseer.ops.chaos.calls import Call
from landseer.ops.chaos.fault import Fault
from landseer.ops.chaos.process_faults import send
from landseer.ops.chaos.scene import Scene
from landseer.ops.chaos.store_faults import DiskFull
from landseer.ops.errors import OpsError
from landseer.ops.watch.scrape import fetch

MERGING = ("--versions-from", "1", "--merge-share", "0.001")
"""Options of `landseer serve` that let it merge after each change."""
WAIT_S = 60.0


class VersionDamaged(Fault):
    """Files of the active version damaged before a start: another version, or the store, serves."""

    hold_s = 0.0

    def __init__(self, name: str, damage: Callable[[Path], None]) -> None:
        """damage: damages a file of a version."""
        self.name = name
        self._damage = damage

    def prepare(self, scene: Scene) -> None:
        """Serve from a new store, with versions."""
        self._former = scene.store
        scene.serve(store=scene.folder / "versions", extra_args=MERGING)

    def inject(self, scene: Scene) -> None:
        """Damage a version while the orchestrator is stopped, and start it."""
        wait_for(lambda: Versions(scene.store).active is not None, "no index version was built")
        scene.between(lambda: self._damaged(scene.store))

    def heal(self, scene: Scene) -> None:
        """Nothing: the server must mend it."""

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """It must have noticed."""
        found = metric(scene, "landseer_index_damaged_versions_total")
        self.note = f"{found:g} damaged version found, version {metric(scene, 'landseer_index_version'):g} serves"
        return [] if found == 1 else ["the damaged version was not noticed"]

    def clear_up(self, scene: Scene) -> None:
        """Serve from the former store again."""
        scene.serve(store=self._former, extra_args=())

    def _damaged(self, store: Path) -> None:
        versions = Versions(store)
        number = versions.active
        if number is None:
            raise OpsError("the active version is gone")
        self._damage(versions.read(number).folder / "index.faiss")


class DiskFullInBuild(DiskFull):
    """A small file system that fills up while a version is being built."""

    name = "disk full while an index version is built"
    arguments = MERGING

    def inject(self, scene: Scene) -> None:
        """Stop the process that builds, fill the disk, and let it go on."""
        wait_for(lambda: bool(_builders(scene)), "no index version is being built")
        builders = _builders(scene)
        send(builders, signal.SIGSTOP)
        super().inject(scene)
        send(builders, signal.SIGCONT)

    def heal(self, scene: Scene) -> None:
        """Make room once the build has failed, and no sooner."""
        try:
            wait_for(lambda: metric(scene, "landseer_index_merges_total", outcome="failed") > 0, "no build failed")
        finally:
            super().heal(scene)

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Writers must be told, and readers must not notice."""
        failed = metric(scene, "landseer_index_merges_total", outcome="failed")
        self.note = f"{failed:g} builds failed, version {metric(scene, 'landseer_index_version'):g} serves"
        return super().complaints(scene, calls)


def truncate_file(file: Path) -> None:
    """Cut off the second half of a file."""
    os.truncate(file, file.stat().st_size // 2)


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def metric(scene: Scene, name: str, **labels: str) -> float:
    """Return a metric of the orchestrator."""
    return fetch(f"http://{scene.orchestrator.config.metrics}/metrics").total(name, **labels)


def wait_for(condition: Callable[[], bool], failed: str) -> None:
    """Wait until something is so; OpsError if that takes too long."""
    until = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > until:
            raise OpsError(f"{failed} within {WAIT_S:g} s")
        time.sleep(0.01)


def _builders(scene: Scene) -> list[psutil.Process]:
    """Return the processes that build versions now."""
    found = []
    for child in psutil.Process(scene.orchestrator.pid).children():
        try:
            if MODULE in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found
