"""Faults of the store's disk: full, a file that may not grow, and damage."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from landseer.ensemble.store.record import to_bytes
from landseer.ensemble.store.store import Store
from landseer.ops.chaos.calls import OK, Call
from landseer.ops.chaos.fault import CannotTry, Fault
from landseer.ops.chaos.scene import Scene
from landseer.ops.errors import OpsError

DISK_MIB = 24
PAGE = 4096
DATA = "data.mdb"


class DiskFull(Fault):
    """A small file system, filled up by another file."""

    name = "disk full"
    arguments: tuple[str, ...] = ()
    """More options of `landseer serve`."""

    def prepare(self, scene: Scene) -> None:
        """Serve from a small file system; CannotTry where none can be mounted."""
        self._disk, self._former = scene.folder / "disk", scene.store
        self._disk.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(self._disk))
        scene.serve(store=self._disk / "store", extra_args=self.arguments)

    def inject(self, scene: Scene) -> None:
        """Fill it."""
        with (self._disk / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(PAGE)):
                    pass
            except OSError:
                return

    def heal(self, scene: Scene) -> None:
        """Make room."""
        (self._disk / "filler").unlink()

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Writers must be told, and readers must not notice."""
        return _full(calls)

    def clear_up(self, scene: Scene) -> None:
        """Serve from the former store again."""
        if self._disk.is_mount():
            scene.serve(store=self._former, extra_args=())
            _run("umount", str(self._disk))


class FileLimit(Fault):
    """A limit on the size of files, below the store's (RLIMIT_FSIZE)."""

    name = "store file at its size limit"

    def prepare(self, scene: Scene) -> None:
        """Serve from a new store, whose file has no free pages."""
        self._former = scene.store
        scene.serve(store=scene.folder / "limited")

    def inject(self, scene: Scene) -> None:
        """Let the store's file not grow."""
        _limit(scene, (scene.store / DATA).stat().st_size)

    def heal(self, scene: Scene) -> None:
        """Lift the limit."""
        _limit(scene, resource.RLIM_INFINITY)

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Writers must be told, and readers must not notice."""
        return _full(calls)

    def clear_up(self, scene: Scene) -> None:
        """Serve from the former store again."""
        scene.serve(store=self._former)


class StoreDamaged(Fault):
    """The store's file damaged: the orchestrator must not serve from it, and say why."""

    hold_s = 3.0

    def __init__(self, name: str, damage: Callable[[Path], None]) -> None:
        """damage: damages the store in a folder, which no process has open."""
        self.name = name
        self._damage = damage

    def inject(self, scene: Scene) -> None:
        """Damage the file while the orchestrator is stopped, and start it."""
        scene.may_end = True
        try:
            scene.between(lambda: self._exchange(scene.store))
            self.note = ""
        except OpsError as error:
            self.note = str(error)

    def heal(self, scene: Scene) -> None:
        """Restore the file."""
        scene.between(lambda: (scene.store / DATA).write_bytes(self._sound))
        scene.may_end = False

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """It must have refused to start, and must have said why."""
        return [] if "damaged" in self.note else ["the orchestrator did not say that the store is damaged"]

    def _exchange(self, folder: Path) -> None:
        self._sound = (folder / DATA).read_bytes()
        self._damage(folder)


def truncate(folder: Path) -> None:
    """Cut off the second half of a store's file."""
    size = (folder / DATA).stat().st_size
    os.truncate(folder / DATA, size // 2 // PAGE * PAGE)


def flip_descriptor(folder: Path) -> None:
    """Flip one bit of a descriptor in a store's file, also in pages that are free now and held it before."""
    store = Store.open(folder, fingerprint=None)
    _, vectors = next(store.vectors.scan())
    store.close()
    sound = to_bytes(vectors[0])
    flipped = bytes([sound[0] ^ 1]) + sound[1:]
    (folder / DATA).write_bytes((folder / DATA).read_bytes().replace(sound, flipped))


def _limit(scene: Scene, most: int) -> None:
    resource.prlimit(scene.orchestrator.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _full(calls: Sequence[Call]) -> list[str]:
    told = any(call.kind == "put" and call.outcome == "RESOURCE_EXHAUSTED" for call in calls)
    disturbed = [call for call in calls if call.kind in ("get", "search") and call.outcome != OK]
    return [
        *([] if told else ["no writer was told that the store is full"]),
        *(f"a {call.kind} failed with {call.outcome}" for call in disturbed),
    ]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotTry(f"{' '.join(command)} failed: {done.stderr.strip()}")
