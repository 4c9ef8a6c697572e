"""The folder of a store: what can be wrong with it is found, and said in plain words, before LMDB touches it."""

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
"""Local features."""
WORDS = b"words"
"""Visual words, which follow from those."""
LATER = (*SLOTS, LOCALS, WORDS)
"""What a store of an older release has not got yet, and what only some pictures have."""
DATABASES = (b"meta", b"ids", b"records", b"descriptors", b"clusters", b"thumbnails", *LATER)
FORMAT = b"landseer-store-1"
"""Changes when a release can no longer read what an older one wrote."""

_OURS = {DATA, LOCK, "lock.mdb", "lost+found"}


class FolderLock:
    """Holds a folder for one process, by an advisory lock that the kernel drops when the process ends, however."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = f"{folder / LOCK} cannot be written: {error.strerror}"
            raise StoreUnusable(f"{why}; make the folder writable, or name another") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreUnusable(
                f"{folder} is in use by process {holder}; one process serves a store at a time: "
                "stop that one, or serve another folder"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the folder. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def prepare_folder(folder: Path) -> Path:
    """Make the folder if it is not there; StoreUnusable if it is something else than a store or an empty folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        why = f"{folder} cannot be used as a store: {error.strerror}"
        raise StoreUnusable(f"{why}; name a folder that you may write") from error
    strangers = sorted(name for name in names - _OURS if not name.startswith("."))
    if DATA not in names and strangers:
        raise StoreUnusable(
            f"{folder} is not a Landseer store: it holds {', '.join(strangers[:3])} and no {DATA}; "
            "name an empty folder or one that does not exist yet"
        )
    return folder


def is_full(error: lmdb.Error, folder: Path) -> bool:
    """Whether LMDB failed for want of room: a full disk, a quota or a limit on the size of files.

    LMDB says EIO when a disk fills up in the middle of a write, so then the data file is tried.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, lmdb.DiskError) or any(os.strerror(code) in str(error) for code in codes):
        return True
    return os.strerror(errno.EIO) in str(error) and not _has_room(folder / DATA)


def _has_room(file: Path, size: int = 2**20) -> bool:
    """Whether a file can grow by a megabyte; it is left as it was."""
    with file.open("r+b", buffering=0) as data:
        end = data.seek(0, os.SEEK_END)
        try:
            return data.write(bytes(size)) == size
        except OSError:
            return False
        finally:
            data.truncate(end)


def open_environment(folder: Path, *, limit_bytes: int, **options: Any) -> Any:
    """Open LMDB in the folder and return its environment; StoreUnusable or StoreFull, in words, if it cannot be."""
    try:
        # Records are read here and there. With read-ahead each page brings megabytes along (8 MiB around it, on some
        # disks), which push out the pages that are needed; what is read in order asks for it itself (`read_ahead`).
        return lmdb.open(
            str(folder), map_size=limit_bytes, max_dbs=len(DATABASES), max_readers=1024, readahead=False, **options
        )
    except lmdb.Error as error:
        if is_full(error, folder):
            why = f"there is no room on the disk for a store in {folder}"
            raise StoreFull(f"{why}; free some, or name another folder") from error
        raise StoreUnusable(
            f"{folder / DATA} cannot be opened as a store ({error}); "
            "restore the folder from a backup, or index the pictures again into another folder"
        ) from error


def require_whole(folder: Path, environment: Any) -> None:
    """Raise StoreUnusable if the data file has lost its end: reading there would kill the process (SIGBUS).

    A sound file may be a few pages short too: LMDB does not write pages that one transaction took and gave back. So a
    short file is read through in another process, and lengthened once nothing was missing.
    """
    file = folder / DATA
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size >= needed:
        return
    checked = subprocess.run(
        [sys.executable, "-m", "landseer.ensemble.store.check", str(folder)], capture_output=True, check=False
    )
    if checked.returncode != 0:
        raise StoreUnusable(
            f"{file} is damaged: it has {file.stat().st_size} bytes where its index says {needed}; "
            "restore the folder from a backup, or index the pictures again into another folder"
        )
    os.truncate(file, needed)


def stamp(folder: Path, environment: Any, fingerprint: str | None) -> None:
    """Mark a fresh environment as ours; check the marks of one that is not fresh. None takes any fingerprint."""
    fresh = environment.stat()["entries"] == 0
    if fresh and fingerprint is None:
        raise no_store(folder)
    with environment.begin(write=fresh) as transaction:
        if fresh and fingerprint is not None:
            meta = environment.open_db(b"meta", txn=transaction)
            transaction.put(b"format", FORMAT, db=meta)
            transaction.put(b"fingerprint", fingerprint.encode(), db=meta)
            _sync_names(folder)
            return
        try:
            meta = environment.open_db(b"meta", txn=transaction, create=False)
        except lmdb.NotFoundError as error:
            raise StoreUnusable(f"{folder} holds another program's LMDB data; name another folder") from error
        format, stored = (bytes(transaction.get(name, b"", db=meta)) for name in (b"format", b"fingerprint"))
    if format != FORMAT:
        raise StoreUnusable(
            f"{folder} has the format {format.decode(errors='replace')!r} and this release reads {FORMAT.decode()!r}; "
            "use the release that wrote it, or index the pictures again into another folder"
        )
    if fingerprint is not None and stored != fingerprint.encode():
        difference = explain_difference(stored.decode(errors="replace"), fingerprint)
        raise ProfileMismatch(
            f"{folder} was filled by other models than are served now: {difference}. "
            "Serve the models it was filled by, or index the pictures again into another folder"
        )


def no_store(folder: Path) -> StoreUnusable:
    """Return the error of a folder in which no picture was ever indexed."""
    return StoreUnusable(f"there is no store in {folder}; name the folder that `landseer serve --store` has")


def _sync_names(folder: Path) -> None:
    """Bring the names of new files to the disk: LMDB sees to their contents only."""
    for each in (folder, folder.parent):
        file = os.open(each, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def reserve(limit: int) -> int:
    """Bytes below the limit that only deletions may use, so that a full store can be emptied: LMDB copies pages."""
    return max(128 * 2**10, min(limit // 16, 16 * 2**20))


def explain_difference(stored: str, served: str) -> str:
    """Say in plain words in what two `Profile.fingerprint`s differ."""
    try:
        old, new = json.loads(stored), json.loads(served)
        differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    except (ValueError, TypeError, AttributeError):
        return f"{stored!r} there, {served!r} here"
    return "; ".join(f"{name} {old.get(name)!r} there, {new.get(name)!r} here" for name in differing)
