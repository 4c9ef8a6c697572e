"""Looks up files by the names in ids, and says where it is not sure that one is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from landseer.client.picture_files import composed

_HOLDERS = (Path("/media"), Path("/mnt"), Path("/run/media"), Path("/Volumes"))
_PERSONAL = (Path("/media"), Path("/run/media"))
"""Folders of mount points, and those that have one for each user: unmounting a disk may remove its folder there."""
_UNMOUNTED = "its disk may not be mounted"


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Whether a file is there."""

    there: bool
    doubt: str = ""
    """Why a file that was not found may exist: its disk may not be mounted, or a folder is unreadable."""


@dataclass(kw_only=True)
class FolderTree:
    """What is in a folder and those below it. Each folder is read once, when it is needed."""

    root: Path
    _read: dict[Path, dict[str, list[Path]] | str] = field(default_factory=dict)
    """By folder: what is in it, by composed name, or why that cannot be told."""

    def find(self, names: Sequence[str]) -> Lookup:
        """Look a file up by the names of the folders that lead to it and its own, in composed characters."""
        return self._find(self.root, names)

    def doubt(self) -> str:
        """Return why nothing can be said about any file in the folder; empty if something can."""
        return _doubt(self.root, self._entries(self.root))

    def _find(self, folder: Path, names: Sequence[str]) -> Lookup:
        entries = self._entries(folder)
        found = [] if isinstance(entries, str) else entries.get(names[0], [])
        if not found:
            return Lookup(there=False, doubt=_doubt(folder, entries) or _holder(folder))
        if len(names) == 1:
            there = [path for path in found if path.exists() or not path.is_symlink()]
            return Lookup(there=bool(there), doubt="" if there else _dangling(found[0]))
        # A disk may have two folders whose names differ only in how their characters are spelled.
        lookups = [self._find(path, names[1:]) for path in found]
        doubts = [lookup.doubt for lookup in lookups if lookup.doubt]
        return Lookup(there=any(lookup.there for lookup in lookups), doubt=doubts[0] if doubts else "")

    def _entries(self, folder: Path) -> dict[str, list[Path]] | str:
        if folder not in self._read:
            self._read[folder] = _entries(folder)
        return self._read[folder]


def _entries(folder: Path) -> dict[str, list[Path]] | str:
    entries: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            entries.setdefault(composed(path.name), []).append(path)
    except OSError as error:
        if folder.is_symlink() and not folder.exists():
            return _dangling(folder)
        if error.errno == errno.ENOENT:
            return f"there is no folder {folder}; {_UNMOUNTED}"
        if error.errno != errno.ENOTDIR:  # Else a file took the place of a folder.
            return f"cannot read {folder}: {error.strerror or error}"
    return entries


def _doubt(folder: Path, entries: dict[str, list[Path]] | str) -> str:
    if isinstance(entries, str):
        return entries
    empty = folder.is_dir() and all(name.startswith(".") for name in entries)
    return f"{folder} is empty; {_UNMOUNTED}" if empty else ""


def _holder(folder: Path) -> str:
    resolved = Path(os.path.realpath(folder))
    holds = resolved in _HOLDERS or resolved.parent in _PERSONAL
    return f"a mount point in {folder} is missing; {_UNMOUNTED}" if holds else ""


def _dangling(link: Path) -> str:
    return f"{link} is a link to nothing; {_UNMOUNTED}"
