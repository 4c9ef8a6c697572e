"""Backs up a store, whether or not a server uses it.

LMDB copies the pages of one state of the store through a pipe; here they become blocks with checksums. The backup is
written under another name beside its own, and gets its name when all of it is on disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import lmdb

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.store.folder import DATA, FORMAT, expected_bytes, is_no_room, sync_names
from landseer.ensemble.store.manifest import (
    BLOCK_BYTES,
    BLOCKS,
    NAME,
    PACKS,
    Backup,
    BackupUnusable,
    Manifest,
    read_manifest,
)
from landseer.ensemble.store.packing import Packing
from landseer.ensemble.store.read_ahead import ReadAhead
from landseer.ensemble.store.reading import reading, snapshot
from landseer.ensemble.store.record import unpack_key

BESIDE = ".partial"
"""What the name of a backup ends with until it is complete. One that a kill left over is replaced by the next."""
_PIPE_BYTES = 2**20
_CHUNK_BYTES = 64 * BLOCK_BYTES
_MOST = 2
"""Backups share packs until these hold this many times the store; then all of it is written anew."""
_TXNID = slice(144, 152)
"""The transaction's number in each of the two first pages of LMDB's data format, which say what the newest state is."""


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """A backup that was made."""

    manifest: Manifest
    new_bytes: int
    """Written; the others are shared with earlier backups."""


Progress = Callable[[int, int], None]
"""Gets the bytes that are done, and all bytes."""


def back_up(
    folder: Path,
    target: Path,
    *,
    whole: bool = False,
    network: bool = False,
    progress: Progress = lambda done, total: None,
) -> BackedUp:
    """Write a backup of the store in `folder` into the new folder `target`. A kill at any moment leaves all or nothing.

    Blocks that the newest backup beside it has, too, are shared with it, unless `whole`.
    StoreUnusable if there is no sound store; BackupUnusable if `target` cannot be made; StoreFull if there is no room.
    """
    target = target.absolute()
    _require_new(folder, target)
    aside = target.with_name(target.name + BESIDE)
    try:
        with _written_aside(aside):
            with reading(folder, network=network) as environment, ExitStack() as after:
                before = None if whole else _before(folder, target, expected_bytes(environment))
                done = _copy(folder, environment, aside, after.enter_context(before) if before else None, progress)
            _write(aside / NAME, done.manifest.to_text().encode())
            for each in (aside / PACKS, aside):
                _sync(each)
            aside.replace(target)
            sync_names(target)
    except lmdb.Error as error:
        raise StoreUnusable(
            f"{folder} cannot be copied ({error}), and there is no new backup; check the disk"
        ) from error
    except OSError as error:
        if is_no_room(error):
            room = shutil.disk_usage(target.parent).free
            raise StoreFull(
                f"there is no room for the backup in {target.parent}: {room:,} bytes are free, and the store has "
                f"{(folder / DATA).stat().st_size:,}; nothing of it is left there. Free some space, or use another disk"
            ) from error
        raise BackupUnusable(f"{target} cannot be written ({error}); the store is unchanged") from error
    return done


def _require_new(folder: Path, target: Path) -> None:
    """BackupUnusable if something is there already, or if it would be inside the store."""
    with suppress(OSError):
        if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
            raise BackupUnusable(f"{target} is there already; name a folder that does not exist yet")
    if target.resolve().is_relative_to(folder.resolve()):
        raise BackupUnusable(f"{target} is inside the store {folder}; name a folder outside, best on another disk")


@contextmanager
def _written_aside(aside: Path) -> Iterator[None]:
    """Make an empty folder for the block to fill; it is removed unless the block gave it another name."""
    aside.mkdir(parents=True, exist_ok=True)
    handle = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupUnusable(f"another backup is being written to {aside}; wait for it, or name another") from error
        except OSError:
            pass  # Some network file systems lock no folders.
        try:
            _empty(aside)
            yield
        except BaseException:
            with suppress(OSError, BackupUnusable):
                _empty(aside)
                aside.rmdir()
            raise
    finally:
        os.close(handle)


def _empty(aside: Path) -> None:
    """Remove what an earlier backup left. BackupUnusable if it is something else."""
    strangers = sorted({path.name for path in aside.iterdir()} - {BLOCKS, NAME, PACKS})
    if strangers:
        raise BackupUnusable(f"{aside} is in the way: it holds {', '.join(strangers[:3])}; remove it, or name another")
    for path in aside.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _before(folder: Path, target: Path, size: int) -> Backup | None:
    """Return the newest backup beside a new one, of the same store if there is any; None if none can be shared with.

    size: of the data file, bytes.
    """
    found = []
    for path in target.parent.iterdir():
        # What is no backup is left alone, and so is a folder that this user may not enter, as lost+found of a disk.
        with suppress(BackupUnusable):
            if path.suffix != BESIDE:
                found.append((path, read_manifest(path)))
    store = str(folder.resolve())
    newest = max(found, key=lambda one: (one[1].store == store, one[1].made_at), default=None)
    if newest is None:
        return None
    try:
        held = sum((newest[0] / PACKS / name).stat().st_size for name in newest[1].packs)
        return Backup(*newest) if held <= _MOST * size else None
    except (OSError, BackupUnusable):
        return None


def _copy(folder: Path, environment: Any, aside: Path, before: Backup | None, progress: Progress) -> BackedUp:
    now, size = datetime.now(timezone.utc), 0
    packing = Packing(aside, now.strftime("%Y%m%dT%H%M%S%fZ"), before)
    try:
        with _pages(folder, environment) as (chunks, transaction), ReadAhead(folder / DATA) as ahead:
            total = expected_bytes(environment)
            for data in chunks:
                packing.add(data)
                size += len(data)
                ahead.reached(size / max(total, size))
                progress(size, max(total, size))
            entries, meta = _figures(environment, transaction)
        packs, blocks = packing.finish()
    finally:
        packing.close()
    _write(aside / BLOCKS, blocks)
    manifest = Manifest(
        release=metadata.version("landseer"),
        made_at=now.isoformat(timespec="microseconds"),
        store=str(folder.resolve()),
        store_format=FORMAT.decode(),
        fingerprint=meta.get(b"fingerprint", b"").decode(),
        sequence=unpack_key(meta.get(b"sequence", b"")),
        entries=entries,
        bytes=size,
        packs=tuple(packs),
        blocks_sha256=hashlib.sha256(blocks).hexdigest(),
    )
    return BackedUp(manifest=manifest, new_bytes=packing.new_bytes)


@contextmanager
def _pages(folder: Path, environment: Any) -> Iterator[tuple[Iterator[memoryview], Any]]:
    """Yield the chunks of one state of the store, each valid until the next, and a transaction that sees that state.

    LMDB begins its copy while it holds back writers, which it does until the first two pages are written. The pipe is
    too small for them, so as long as nobody reads it, no other state can come between copy and transaction.
    """
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 1)
    failures: list[Exception] = []
    copier = threading.Thread(target=_copier, args=(environment, sink, failures), name="copy", daemon=True)
    with BufferedReader(FileIO(source), _PIPE_BYTES) as pages:
        copier.start()
        try:
            select.select([pages], [], [])
            with snapshot(folder, environment) as transaction:
                with suppress(OSError):  # Beyond the limit of this user's pipes it stays small, and slow.
                    fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                page = environment.stat()["psize"]
                first = pages.read(2 * page)
                if len(first) == 2 * page:
                    _require_same(folder, first, page, transaction)
                yield _chunks(first, pages), transaction
        finally:
            pages.close()
            copier.join()
    if failures:
        raise failures[0]


def _copier(environment: Any, sink: int, failures: list[Exception]) -> None:
    try:
        environment.copyfd(sink)
    except Exception as error:
        failures.append(error)
    finally:
        os.close(sink)


def _require_same(folder: Path, first: bytes, page: int, transaction: Any) -> None:
    newest = max(int.from_bytes(first[start:][_TXNID], "little") for start in (0, page))
    if newest != transaction.id():
        raise StoreUnusable(f"{folder} changed while the copy began; try again")


def _chunks(first: bytes, pages: BufferedReader[FileIO]) -> Iterator[memoryview]:
    buffer, filled = memoryview(bytearray(_CHUNK_BYTES)), len(first)
    buffer[:filled] = first
    while filled := filled + pages.readinto(buffer[filled:]):
        yield buffer[:filled]
        filled = 0


def _figures(environment: Any, transaction: Any) -> tuple[dict[str, int], dict[bytes, bytes]]:
    """Return the number of entries of each database, and what `meta` holds."""
    names = [bytes(name) for name, _ in transaction.cursor()]
    databases = {name: environment.open_db(name, txn=transaction, create=False) for name in names}
    meta = {bytes(key): bytes(value) for key, value in transaction.cursor(databases[b"meta"])}
    return {name.decode(): transaction.stat(each)["entries"] for name, each in databases.items()}, meta


def _write(path: Path, data: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
