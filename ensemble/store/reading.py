"""Opens a store to read it while a server may be using it.

LMDB is made for that: a reader sees the state in which it began, and notes it in `lock.mdb`, which it shares with the
writer, on one machine. The writer neither waits for it nor is waited for, but does not use pages again that became free
since: what is written meanwhile makes the file grow, by as much as was written. The reader's note outlives a kill until
the next write.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.data_lock import data_held
from landseer.ensemble.store.folder import (
    DATA,
    FolderLock,
    expected_bytes,
    no_store,
    open_environment,
    require_whole,
    stamp,
)
from landseer.ensemble.store.mounts import require_local

_NOTES = "lock.mdb"


@contextmanager
def reading(folder: Path, *, network: bool = False) -> Iterator[Any]:
    """Yield the LMDB environment of a store, to read, whether or not another process uses the store.

    network: whether the folder may be on a file system of another machine.
    StoreUnusable if it is no store, is damaged, is being compacted, or may not be read.
    """
    if not (folder / DATA).exists():
        raise no_store(folder)
    if not network:
        require_local(folder)
    with data_held(folder):
        _share_notes(folder)
        environment = _opened(folder)
        try:
            _require_whole(folder, environment)
            stamp(folder, environment, None)
            yield environment
        finally:
            environment.close()


@contextmanager
def snapshot(folder: Path, environment: Any) -> Iterator[Any]:
    """Yield a transaction of what the store holds now. StoreUnusable."""
    try:
        transaction = environment.begin(buffers=True)
    except lmdb.Error as error:
        raise StoreUnusable(f"{folder} cannot be read beside its server ({error}); try again") from error
    with transaction:
        yield transaction


def _opened(folder: Path) -> Any:
    try:
        # Without a size LMDB takes the one that the writer noted, so the file may grow under the reader.
        return open_environment(folder, limit_bytes=0, readonly=True, create=False)
    except StoreUnusable as error:
        # LMDB holds a lock for each process at the place of its id.
        if os.strerror(errno.EAGAIN) in str(error):
            raise StoreUnusable(
                f"{folder} cannot be read beside its server: a process with the same id, {os.getpid()}, has it open in "
                "another container. Run this in the server's container, as with `docker exec`"
            ) from error
        raise


def _share_notes(folder: Path) -> None:
    """Make `lock.mdb` if it is missing, so that the server's user may write it; StoreUnusable if this user may not."""
    notes, owner = folder / _NOTES, (folder / DATA).stat()
    try:
        with suppress(FileExistsError):
            file = os.open(notes, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(file, owner.st_mode & 0o7777)
                if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file, owner.st_uid, owner.st_gid)
            finally:
                os.close(file)
        allowed = os.access(notes, os.R_OK | os.W_OK)
    except OSError:
        allowed = False
    if not allowed:
        raise StoreUnusable(
            f"{notes} may not be written, where readers note what they read; run this as the server's user"
        )


def _require_whole(folder: Path, environment: Any) -> None:
    """StoreUnusable if the file was truncated. The process that uses the store has checked that at its start."""
    if (folder / DATA).stat().st_size >= expected_bytes(environment):
        return
    try:
        lock = FolderLock(folder)
    except StoreUnusable:
        return
    try:
        require_whole(folder, environment)
    finally:
        lock.release()
