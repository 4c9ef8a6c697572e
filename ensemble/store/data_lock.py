"""Keeps the data file of a store from being replaced under those who read it.

LMDB lets processes share a store: each notes in `lock.mdb` which state it reads. But those notes belong to one data
file. If `landseer compact` put another in its place while somebody read the old one, the next server would take the
notes of the old file for those of the new one, and write over pages in use. So readers hold a shared lock on the data
file, and who replaces it holds it alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.folder import DATA


@contextmanager
def data_held(folder: Path, *, to_replace: bool = False) -> Iterator[None]:
    """Hold the data file of a store while the block runs: with other readers, or alone to replace it. StoreUnusable."""
    how, kind = (os.O_RDWR, fcntl.LOCK_EX) if to_replace else (os.O_RDONLY, fcntl.LOCK_SH)
    try:
        file = os.open(folder / DATA, how | os.O_CLOEXEC)
    except OSError as error:
        raise StoreUnusable(
            f"{folder / DATA} cannot be read: {error.strerror}; run this as the server's user"
        ) from error
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = "is being read, as for a backup or an export" if to_replace else "is being compacted"
            raise StoreUnusable(f"{folder} {other}; try again when that has ended") from error
        if not os.path.samestat(os.fstat(file), (folder / DATA).stat()):
            raise StoreUnusable(f"{folder} was compacted just now; try again")
        yield
    finally:
        os.close(file)
