"""Index versions on disk: built aside, published by a rename, and one of them active.

    STORE/index/
      active            the number of the version that serves, as text
      unchecked         the number of a version that serves, or served, before all of its bytes were checked
      versions/7/       a version: its files, and `manifest.json` with their sizes and checksums
      building-TOKEN/   a version that is being built, or was when its process ended
      gone-TOKEN/       a version that is being deleted

Everything in it derives from the store: deleting the folder, while no server runs, costs the time to build it again.

A version holds the pictures of the keys up to a sequence number of the store. As keys only increase and are never used
again, what it lacks are the pictures of larger keys, and what it has too much are its keys that the store has no more.
That holds for the store that it was built from, and not for another or an older one put in its place. So each version
has a random token that is noted in the store, after the version was written and before it is activated.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from landseer.ensemble.index.manifest import Built, Manifest, sync_folder

VECTORS, WORDS, FIELDS = "index", "index-words", "index-fields"
"""Folders in that of the store."""
_ACTIVE, _UNCHECKED = "active", "unchecked"
_BUILDING, _GONE = "building-", "gone-"


@dataclass(frozen=True, kw_only=True)
class Version:
    """An index version whose files have the right names and sizes."""

    number: int
    folder: Path
    manifest: Manifest

    def why_not(self, built: Built, tokens: frozenset[str]) -> str:
        """Return why it cannot serve a store that is in the state `built` and has noted `tokens`; empty if it can."""
        ours = self.manifest.built
        if ours.fingerprint != built.fingerprint:
            return "its vectors are of other models"
        if ours.vectors != built.vectors:
            return f"it has {ours.vectors} vectors, and {built.vectors} ones are searched"
        if self.manifest.token not in tokens or ours.sequence > built.sequence:
            return "it was built from another store, or from a later state of this one"
        return ""


class Versions:
    """The index versions in the folder of a store. Only the process that has the store's lock may change them."""

    def __init__(self, store: Path, name: str = VECTORS) -> None:
        """name: of the folder, `VECTORS`, `WORDS` or `FIELDS`."""
        self.folder = store / name
        self._versions = self.folder / "versions"

    @property
    def numbers(self) -> list[int]:
        """Numbers of all versions, damaged ones too, ascending."""
        if not self._versions.is_dir():
            return []
        return sorted(int(path.name) for path in self._versions.iterdir() if path.name.isdecimal())

    @property
    def active(self) -> int | None:
        """Number of the active version; None if there is none, or the file that tells it is damaged."""
        number = self._number(_ACTIVE)
        return number if number in self.numbers else None

    @property
    def unchecked(self) -> int | None:
        """Number of a version that served before all of its bytes were checked; None if they were."""
        return self._number(_UNCHECKED)

    def read(self, number: int) -> Version:
        """Return a version. VersionDamaged if its manifest or the sizes of its files are not as written."""
        folder = self._versions / str(number)
        return Version(number=number, folder=folder, manifest=Manifest.read(folder))

    def by_preference(self) -> list[int]:
        """Return the numbers of all versions: the active one, then the others, newest first."""
        active = self.active
        return sorted(self.numbers, key=lambda number: (number != active, -number))

    def aside(self) -> tuple[str, Path]:
        """Return a new token and an empty folder to build its version in. OSError."""
        token = secrets.token_hex(16)
        folder = self.folder / f"{_BUILDING}{token}"
        folder.mkdir(parents=True)
        return token, folder

    def publish(self, folder: Path) -> Version:
        """Give the version that was built aside, and whose files are synced, its number. VersionDamaged; OSError."""
        Manifest.read(folder)
        self._versions.mkdir(exist_ok=True)
        # Nothing that was noted of a version that is gone may hold for this one.
        noted = [self._number(_ACTIVE) or 0, self._number(_UNCHECKED) or 0]
        number = max([*self.numbers, *noted]) + 1
        folder.rename(self._versions / str(number))
        for changed in (self._versions, self.folder, self.folder.parent):
            sync_folder(changed)
        return self.read(number)

    def activate(self, number: int) -> None:
        """Make a version the one that serves from the next start on, by one atomic step."""
        self._point(_ACTIVE, number)

    def mark_unchecked(self, number: int | None) -> None:
        """Note that a version serves before all of its bytes are checked; None: they are."""
        if number is not None:
            self._point(_UNCHECKED, number)
        elif (self.folder / _UNCHECKED).exists():
            (self.folder / _UNCHECKED).unlink()
            sync_folder(self.folder)

    def discard(self, number: int) -> None:
        """Delete a version. What a process has mapped of it stays until it ends. OSError."""
        (self._versions / str(number)).rename(self.folder / f"{_GONE}{secrets.token_hex(8)}")
        self._sweep(_GONE)

    def tidy(self, *, kept: int) -> None:
        """Delete what was half built, and all versions but the active one and the newest, `kept` together. OSError.

        Nothing may be under construction.
        """
        if not self.folder.is_dir():
            return
        for number in self.by_preference()[max(1, kept) :]:
            (self._versions / str(number)).rename(self.folder / f"{_GONE}{secrets.token_hex(8)}")
        self._sweep(_BUILDING, _GONE)

    def _sweep(self, *prefixes: str) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith(prefixes):
                shutil.rmtree(path, ignore_errors=True)

    def _number(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _point(self, name: str, number: int) -> None:
        aside = self.folder / f"{name}.new"
        with aside.open("w", encoding="ascii") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / name)
        sync_folder(self.folder)
