"""The folder of a store. Checks it before LMDB opens it, so that errors are readable."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import ProfileMismatch, StoreFull, StoreUnusable

DATA = "data.mdb"
LOCK = "landseer.lock"
SLOTS = (b"augmented-1", b"augmented-2")
"""Augmented vectors."""
LOCALS = b"locals"
"""Deep local features."""
WORDS = b"words"
"""Visual words, computed from deep local features."""
KEYPOINTS = b"keypoints"
PATCHES = b"patches"
SUMS = b"sums"
"""Checksums."""
LATER = (*SLOTS, LOCALS, WORDS, KEYPOINTS, PATCHES, SUMS)
"""Databases that older releases lack, and that have entries for some pictures only."""
DATABASES = (b"meta", b"ids", b"records", b"descriptors", b"clusters", b"thumbnails", *LATER)
FORMAT = b"landseer-store-1"
"""Changes when a release cannot read the stores of older ones."""

_OURS = {DATA, LOCK, "lock.mdb", "lost+found"}


class FolderLock:
    """Reserves a folder for one process, by an advisory lock that the kernel releases when the process ends."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = f"{folder / LOCK} cannot be written: {error.strerror}"
            raise StoreUnusable(f"{why}; make the folder writable, or use another") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreUnusable(
                f"{folder} is in use by process {holder}, and only one process may use a store at a time; "
                "stop that process, or use another folder"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Release the folder. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def prepare_folder(folder: Path) -> Path:
    """Create the folder if missing; StoreUnusable unless it is a store or an empty folder."""
    _require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        why = f"{folder} cannot be used as a store: {error.strerror}"
        raise StoreUnusable(f"{why}; use a folder that you may write to") from error
    strangers = sorted(name for name in names - _OURS if not name.startswith("."))
    if DATA not in names and strangers:
        raise StoreUnusable(
            f"{folder} is not a Landseer store: it holds {', '.join(strangers[:3])} and no {DATA}; "
            "use an empty folder, or one that does not exist yet"
        )
    return folder


def is_full(error: lmdb.Error, folder: Path) -> bool:
    """Return whether LMDB ran out of space: a full disk, a quota, or a limit on file sizes.

    LMDB reports EIO when a disk fills up in the middle of a write, so in that case this tries to grow the data file.
    """
    if is_no_room(error):
        return True
    return os.strerror(errno.EIO) in str(error) and not _has_room(folder / DATA)


def is_no_room(error: Exception) -> bool:
    """Return whether an error says that there is no space: a full disk, a quota, or a limit on file sizes."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, lmdb.DiskError) or any(os.strerror(code) in str(error) for code in codes)


def _has_room(file: Path, size: int = 2**20) -> bool:
    """Return whether a file can grow by a megabyte; its content does not change."""
    with file.open("r+b", buffering=0) as data:
        end = data.seek(0, os.SEEK_END)
        try:
            return data.write(bytes(size)) == size
        except OSError:
            return False
        finally:
            data.truncate(end)


def open_environment(folder: Path, *, limit_bytes: int, **options: Any) -> Any:
    """Open LMDB in the folder and return its environment. StoreUnusable; StoreFull."""
    try:
        # Records are read at random. With read-ahead each page loads megabytes around it (8 MiB on some disks), which
        # evict the pages that are needed. Sequential readers request read-ahead themselves (`read_ahead`).
        return lmdb.open(
            str(folder), map_size=limit_bytes, max_dbs=len(DATABASES), max_readers=1024, readahead=False, **options
        )
    except lmdb.Error as error:
        if is_full(error, folder):
            why = f"there is no room on the disk for a store in {folder}"
            raise StoreFull(f"{why}; free some space, or use another folder") from error
        raise StoreUnusable(
            f"{folder / DATA} cannot be opened as a store ({error}); "
            "restore the folder from a backup, or index the pictures again into another folder"
        ) from error


def require_whole(folder: Path, environment: Any) -> None:
    """Raise StoreUnusable if the data file is truncated: reading past its end would kill the process (SIGBUS).

    A sound file may be a few pages short too: LMDB does not write pages that one transaction allocated and freed. So a
    short file is checked in a subprocess, and extended if nothing is missing.
    """
    file, needed = folder / DATA, expected_bytes(environment)
    if file.stat().st_size >= needed:
        return
    checked = subprocess.run(
        [sys.executable, "-m", "landseer.ensemble.store.check", str(folder)], capture_output=True, check=False
    )
    if checked.returncode != 0:
        raise StoreUnusable(
            f"{file} is damaged: it has {file.stat().st_size} bytes, its index expects {needed}; "
            "restore the folder from a backup, or index the pictures again into another folder"
        )
    os.truncate(file, needed)


def expected_bytes(environment: Any) -> int:
    """Return the bytes of pages that the newest state of a store may use."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def stamp(folder: Path, environment: Any, fingerprint: str | None) -> None:
    """Stamp a new environment, or check the stamps of an existing one. None accepts any fingerprint."""
    fresh = environment.stat()["entries"] == 0
    if fresh and fingerprint is None:
        raise no_store(folder)
    with environment.begin(write=fresh) as transaction:
        if fresh and fingerprint is not None:
            meta = environment.open_db(b"meta", txn=transaction)
            transaction.put(b"format", FORMAT, db=meta)
            transaction.put(b"fingerprint", fingerprint.encode(), db=meta)
            sync_names(folder)
            return
        try:
            meta = environment.open_db(b"meta", txn=transaction, create=False)
        except lmdb.NotFoundError as error:
            raise StoreUnusable(f"{folder} holds another program's LMDB data; use another folder") from error
        format, stored = (bytes(transaction.get(name, b"", db=meta)) for name in (b"format", b"fingerprint"))
    if format != FORMAT:
        raise StoreUnusable(
            f"{folder} has format {format.decode(errors='replace')!r}, but this release reads {FORMAT.decode()!r}; "
            "use the release that wrote it, or index the pictures again into another folder"
        )
    if fingerprint is not None and stored != fingerprint.encode():
        difference = explain_difference(stored.decode(errors="replace"), fingerprint)
        raise ProfileMismatch(
            f"{folder} was filled by other models than are served now: {difference}. "
            "Serve those models, or index the pictures again into another folder"
        )


def no_store(folder: Path) -> StoreUnusable:
    """Return the error for a folder without a store. StoreUnusable if it is the address of a database."""
    _require_folder(folder)
    return StoreUnusable(f"there is no store in {folder}; give the folder of `landseer serve --store`")


def _require_folder(path: Path) -> None:
    """Raise StoreUnusable for the address of a database, which only the server takes."""
    # As a path it has lost one of its slashes.
    if path.parts and path.parts[0] in ("postgres:", "postgresql:"):
        raise StoreUnusable(
            "got the address of a database; this command is for stores in folders. Only `landseer serve --store`, "
            "`export-store` and `import-store` take an address, and `pg_dump` makes a backup of one"
        )


def sync_names(folder: Path) -> None:
    """Sync the directory entries of new files to disk; LMDB only syncs their contents."""
    for each in (folder, folder.parent):
        file = os.open(each, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def reserve(limit: int) -> int:
    """Return the bytes below the limit reserved for deletions: LMDB copies pages, so deleting needs space."""
    return max(128 * 2**10, min(limit // 16, 16 * 2**20))


def explain_difference(stored: str, served: str, *, other: str = "served") -> str:
    """Describe how two `Profile.fingerprint`s differ. other: where the second one is."""
    try:
        old, new = json.loads(stored), json.loads(served)
        differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    except (ValueError, TypeError, AttributeError):
        return f"{stored!r} in the store, {served!r} {other}"
    return "; ".join(f"{name} {old.get(name)!r} in the store, {new.get(name)!r} {other}" for name in differing)
