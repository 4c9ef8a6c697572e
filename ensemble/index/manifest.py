"""What an index version says of itself: how it was built, from which state of the store, and its files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.main_index import BuildStopped

NAME = "manifest.json"
FORMAT = 1
"""Of the manifest and the files. A manifest without one is of this format."""


_PART = 2**22
"""Bytes of a file that are read at a time."""


class VersionDamaged(Exception):
    """The files of an index version are not those that were written. The message says which."""


class OtherFormat(VersionDamaged):
    """An index version is of another release, which may use it again: no reason to delete it."""


@dataclass(frozen=True, kw_only=True)
class VersionFile:
    """A file of a version."""

    name: str
    """Relative to the version's folder."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a version was built from."""

    fingerprint: str
    """Of the profile of the vectors."""
    vectors: str
    """Which vectors: `raw`, or the augmentation that made them."""
    sequence: int
    """Of the store: the version holds each picture of a key up to this that has not been removed since."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An index version, as its file says."""

    token: str
    """Random, and noted in the store: a version of another store, or of its future, is not used."""
    built: Built
    setting: IndexSetting
    dimension: int
    """D."""
    size: int
    """Number of vectors."""
    longest: float
    """The largest norm of a vector, 1 or more."""
    made_at: float
    """Unix seconds."""
    made_by: str
    """The release, host and process."""
    seconds: float
    """That building it took."""
    files: tuple[VersionFile, ...]

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)

    def write(self, folder: Path) -> None:
        """Write it into a version's folder, with its own checksum, and sync it."""
        told = {"format": FORMAT, **asdict(self)}
        text = json.dumps({**told, "sha256": _own_sum(told)}, indent=1) + "\n"
        with (folder / NAME).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it from a version's folder.

        VersionDamaged if it is not as written, or a file has another size; OtherFormat if another release wrote it.
        """
        try:
            told: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
            written = told.pop("sha256")
            if written == _own_sum(told) and told.get("format", FORMAT) != FORMAT:
                said = f"has format {told['format']}, of another release; this one reads {FORMAT}"
                raise OtherFormat(f"{folder / NAME} {said}")
            found = cls(
                **{field.name: told[field.name] for field in fields(cls)}
                | {
                    "built": Built(**told["built"]),
                    "setting": IndexSetting(**told["setting"]),
                    "files": tuple(VersionFile(**file) for file in told["files"]),
                }
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise VersionDamaged(f"{folder / NAME} cannot be read ({type(error).__name__}: {error})") from error
        if written != _own_sum(told):
            raise VersionDamaged(f"{folder / NAME} is not as it was written")
        for file in found.files:
            there = (folder / file.name).stat().st_size if (folder / file.name).is_file() else None
            if there != file.bytes:
                size = "is missing" if there is None else f"has {there:,} bytes"
                raise VersionDamaged(f"{folder / file.name} {size}; expected {file.bytes:,}")
        return found

    def check(self, folder: Path, stop: threading.Event | None = None) -> None:
        """Read every byte of the version's files. VersionDamaged if one differs from what was written.

        BuildStopped soon after `stop` is set.
        """
        for file in self.files:
            try:
                found = _sum_of(folder / file.name, stop)
            except OSError as error:
                raise VersionDamaged(f"{folder / file.name} cannot be read: {error.strerror}") from error
            if found != file.sha256:
                raise VersionDamaged(f"{folder / file.name} is not as it was written: its SHA-256 is {found[:12]}")


def files_of(folder: Path, stop: threading.Event | None = None) -> tuple[VersionFile, ...]:
    """Return the files in a version's folder, after they are synced. OSError; BuildStopped soon after `stop` is set."""
    return tuple(
        VersionFile(name=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=_synced_sum(path, stop))
        for path in sorted(_files(folder))
    )


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != NAME:
            yield path
        elif path.is_dir():
            sync_folder(path)


def _synced_sum(path: Path, stop: threading.Event | None) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _sum_of(path, stop)


def _sum_of(path: Path, stop: threading.Event | None) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART):
            if stop is not None and stop.is_set():
                raise BuildStopped(f"stopped while {path} was read")
            found.update(part)
    return found.hexdigest()


def _own_sum(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
