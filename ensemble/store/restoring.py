"""Restores a store from a backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.store.folder import DATA, FORMAT, LOCK, FolderLock, is_no_room, open_environment, sync_names
from landseer.ensemble.store.manifest import Backup, BackupUnusable, Manifest, read_manifest
from landseer.ensemble.store.mounts import require_local

BESIDE = "data.mdb.restoring"
"""The name of the file until it is complete; a server refuses a folder that holds only this."""
_HARMLESS = {LOCK, "lock.mdb", "lost+found", BESIDE}


def restore(
    backup: Path,
    folder: Path,
    *,
    network: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write the store of a backup into an empty or new folder. A kill at any moment leaves a complete store, or none.

    Every block is compared with its checksum, and the number of entries with the manifest. progress: gets the bytes
    that are written, and all.
    BackupUnusable for a damaged backup, or one of another release; StoreUnusable if the folder holds something or is in
    use; StoreFull if there is no room.
    """
    manifest = read_manifest(backup)
    if manifest.store_format != FORMAT.decode():
        raise BackupUnusable(
            f"{backup} holds a store of format {manifest.store_format!r}, but this release reads {FORMAT.decode()!r}; "
            f"restore it with release {manifest.release}"
        )
    if not network:
        require_local(folder)
    _require_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"{folder} cannot be made ({error.strerror}); use another folder") from error
    lock = FolderLock(folder)
    try:
        _require_empty(folder)
        _restore(backup, manifest, folder, progress)
    finally:
        lock.release()
    return manifest


def _require_empty(folder: Path) -> None:
    """StoreUnusable if a folder holds a store, in use or not, or anything else."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnusable(f"{folder} cannot be used as a store: {error.strerror}; use another folder") from error
    if DATA in names and LOCK in names:
        FolderLock(folder).release()  # To say which process uses it.
    if found := sorted(names - _HARMLESS):
        raise StoreUnusable(
            f"{folder} is not empty: it holds {', '.join(found[:3])}; restore into a folder that does not exist yet, "
            "or move what is there away"
        )


def _restore(backup: Path, manifest: Manifest, folder: Path, progress: Callable[[int, int], None]) -> None:
    copy = folder / BESIDE
    copy.unlink(missing_ok=True)
    room = shutil.disk_usage(folder).free
    if room < manifest.bytes:
        raise StoreFull(f"{folder} needs {manifest.bytes:,} bytes, and {room:,} are free; use another disk")
    try:
        _write(backup, manifest, copy, progress)
        _require_counts(backup, manifest, copy)
        _give_to_owner(folder)
        copy.replace(folder / DATA)
        sync_names(folder)
    except OSError as error:
        if is_no_room(error):
            raise StoreFull(
                f"there is no room for the store in {folder} ({error.strerror}); nothing is left"
            ) from error
        raise StoreUnusable(f"{folder} cannot be written ({error}); nothing was restored") from error
    finally:
        copy.unlink(missing_ok=True)


def _write(backup: Path, manifest: Manifest, copy: Path, progress: Callable[[int, int], None]) -> None:
    done = 0
    with Backup(backup, manifest) as there, copy.open("wb") as file:
        for data in there.sound():
            file.write(data)
            done += len(data)
            progress(done, manifest.bytes)
        file.flush()
        os.fsync(file.fileno())


def _require_counts(backup: Path, manifest: Manifest, copy: Path) -> None:
    environment: Any = open_environment(copy, limit_bytes=0, subdir=False, readonly=True, lock=False, create=False)
    try:
        with environment.begin() as transaction:
            names = [bytes(name) for name, _ in transaction.cursor()]
            opened = {name: environment.open_db(name, txn=transaction, create=False) for name in names}
            found = {name.decode(): transaction.stat(each)["entries"] for name, each in opened.items()}
    except lmdb.Error as error:
        raise BackupUnusable(f"what {backup} holds cannot be opened ({error}); use another backup") from error
    finally:
        environment.close()
    if found != manifest.entries:
        raise BackupUnusable(f"{backup} holds {found}, and its manifest says {manifest.entries}; use another backup")


def _give_to_owner(folder: Path) -> None:
    """Root gives the files to the owner of their folder, whose server must be able to write them."""
    owner = folder.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        for name in (BESIDE, LOCK):
            os.chown(folder / name, owner.st_uid, owner.st_gid)
