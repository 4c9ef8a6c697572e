"""Writes a store anew without its free pages: the only way in which its file shrinks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.store.data_lock import data_held
from landseer.ensemble.store.folder import (
    DATA,
    FolderLock,
    is_no_room,
    no_store,
    open_environment,
    require_whole,
    stamp,
    sync_names,
)

BESIDE = ".compacted"
"""What the name of the copy ends with. One that is left over, after a kill, is replaced by the next compaction."""


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """The size of a store's file, in bytes."""

    before: int
    after: int


def compact(folder: Path) -> Compacted:
    """Replace the file of a store by a copy without free pages. A kill at any moment leaves the one or the other.

    StoreUnusable if it is no store, is in use or damaged, or is being backed up or exported; StoreFull if there is no
    room for the copy beside the file.
    """
    if not (folder / DATA).exists():
        raise no_store(folder)
    lock = FolderLock(folder)
    try:
        # The file may be a link to another disk. Only on its own disk can the copy take its name.
        file = (folder / DATA).resolve()
        copy = file.with_name(file.name + BESIDE)
        before = file.stat().st_size
        try:
            with data_held(folder, to_replace=True):
                _copy(folder, file, copy)
                copy.replace(file)
        finally:
            copy.unlink(missing_ok=True)
        sync_names(file.parent)
        return Compacted(before=before, after=file.stat().st_size)
    finally:
        lock.release()


def _copy(folder: Path, file: Path, copy: Path) -> None:
    """Write a copy without free pages, on disk when this returns, and count what is in it."""
    with _opened(folder) as environment:
        require_whole(folder, environment)
        stamp(folder, environment, None)
        try:
            with copy.open("wb") as target:
                _give_to_owner(target.fileno(), file.stat())
                environment.copyfd(target.fileno(), compact=True)
                os.fsync(target.fileno())
        except (OSError, lmdb.Error) as error:
            if is_no_room(error):
                room = shutil.disk_usage(file.parent).free
                raise StoreFull(
                    f"there is no room for the copy beside {file}: {room:,} bytes are free, and it takes at most "
                    f"{file.stat().st_size:,}; the store is unchanged. Free some space"
                ) from error
            raise StoreUnusable(f"{file} cannot be copied ({error}); the store is unchanged") from error
        found = _entries(environment)
    with _opened(copy, subdir=False) as environment:
        if _entries(environment) != found:
            raise StoreUnusable(f"the copy of {file} is incomplete, so the store is unchanged; check the disk")


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[Any]:
    environment = open_environment(path, limit_bytes=2**20, readonly=True, lock=False, create=False, **options)
    try:
        yield environment
    finally:
        environment.close()


def _entries(environment: Any) -> dict[bytes, int]:
    """Return the number of entries of each database."""
    with environment.begin() as transaction:
        names = [bytes(name) for name, _ in transaction.cursor()]
        opened = {name: environment.open_db(name, txn=transaction, create=False) for name in names}
        return {name: transaction.stat(database)["entries"] for name, database in opened.items()}


def _give_to_owner(file: int, status: os.stat_result) -> None:
    """Give a file the rights and the owner of another: a server that runs as another user must be able to write it."""
    os.fchmod(file, status.st_mode & 0o7777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(file, status.st_uid, status.st_gid)
