"""Exports a store, whether or not a server uses it, to a Parquet file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Protocol

import lmdb
import pyarrow.parquet as pq

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.folder import is_no_room, sync_names
from landseer.ensemble.store.parquet import About, ExportUnusable, schema_of, to_batch
from landseer.ensemble.store.postgres.shared_whole import shared_whole
from landseer.ensemble.store.reading import reading, snapshot
from landseer.ensemble.store.whole import WholeRecord, WholeStore

BESIDE = ".partial"
_GROUP_ROWS, _GROUP_BYTES = 1000, 64 * 2**20
"""Of a row group, at most: what is held in memory."""
_TEXTS = ("id", "metadata.key_value.key", "metadata.key_value.value", "model_version")
"""Columns that are compressed; vectors and JPEG hardly get smaller."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written."""

    about: About
    bytes: int


class _Source(Protocol):
    """A store as it was at one moment."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def pictures(self) -> int: ...
    @property
    def stamps(self) -> dict[str, str]: ...
    def records(self) -> Iterator[WholeRecord]: ...


def export_store(
    store: Path | PostgresAddress,
    file: Path,
    *,
    network: bool = False,
    insecure: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write what a store holds to a new file. A kill at any moment leaves the complete file, or none.

    network: whether a folder may be on a file system of another machine. insecure: see `PostgresStore.open`.
    progress: gets the number of pictures that are done, and of all.
    StoreUnusable if there is no sound store, or no picture in it; ExportUnusable if the file is there or cannot be
    written; StoreFull if there is no room; StoreUnavailable and ImportError for a store in PostgreSQL.
    """
    if file.exists() or file.is_symlink():
        raise ExportUnusable(f"{file} is there already; name a file that does not exist yet")
    aside = file.with_name(file.name + BESIDE)
    try:
        with _whole(store, network=network, insecure=insecure) as source:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _written_aside(aside) as target:
                about = _write(source, store, target, progress)
                size = target.tell()
                aside.replace(file)
        sync_names(file.parent)
    except lmdb.Error as error:
        raise StoreUnusable(
            f"{store} cannot be read ({error}), and there is no file; check the disk, and restore a backup"
        ) from error
    except OSError as error:
        if is_no_room(error):
            raise StoreFull(f"there is no room for {file}; nothing of it is left. Free some space") from error
        raise ExportUnusable(f"{file} cannot be written ({error}); the store is unchanged") from error
    return Exported(about=about, bytes=size)


@contextmanager
def _whole(store: Path | PostgresAddress, *, network: bool, insecure: bool) -> Iterator[_Source]:
    if isinstance(store, PostgresAddress):
        with shared_whole(store, insecure=insecure) as shared:
            yield shared
        return
    with reading(store, network=network) as environment, snapshot(store, environment) as transaction:
        yield WholeStore(store, environment, transaction)


@contextmanager
def _written_aside(aside: Path) -> Iterator[BinaryIO]:
    """Open an empty file for the block to fill and rename; it is removed if the block fails.

    What a kill left there is overwritten. ExportUnusable if another export is writing it.
    """
    with os.fdopen(os.open(aside, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that ended just now gave the file its name: it is complete, and no longer ours to write.
            busy = not os.path.samestat(os.fstat(target.fileno()), aside.stat())
        except (BlockingIOError, FileNotFoundError):
            busy = True
        except OSError:
            busy = False  # Some network file systems lock no files.
        if busy:
            raise ExportUnusable(f"another export is being written to {aside}; wait for it, or name another file")
        try:
            target.truncate()
            yield target
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise


def _write(
    store: _Source, name: Path | PostgresAddress, target: BinaryIO, progress: Callable[[int, int], None]
) -> About:
    about = About(
        release=metadata.version("landseer"),
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        fingerprint=store.fingerprint,
        sequence=store.sequence,
        pictures=store.pictures,
        stamps=store.stamps,
    )
    groups, done = _groups(store.records()), 0
    first = next(groups, None)
    if first is None:
        raise StoreUnusable(f"{name} has no pictures, so there is nothing to export")
    schema = schema_of(about, descriptor=len(first[0].record.descriptor), reduced=len(first[0].record.query_vector))
    writer = pq.ParquetWriter(
        target,
        schema,
        compression=dict.fromkeys(_TEXTS, "zstd"),
        use_dictionary=["model_version"],
        write_statistics=["key", "id", "indexed_at", "width", "height"],
        write_page_checksum=True,
    )
    try:
        for group in _with(first, groups):
            writer.write_batch(to_batch(group, schema))
            done += len(group)
            progress(done, about.pictures)
    except BaseException:
        # So that it does not try to end the file later.
        with suppress(Exception):
            writer.close()
        raise
    writer.close()
    target.flush()
    os.fsync(target.fileno())
    return about


def _with(first: list[WholeRecord], others: Iterator[list[WholeRecord]]) -> Iterator[list[WholeRecord]]:
    yield first
    yield from others


def _groups(records: Iterator[WholeRecord]) -> Iterator[list[WholeRecord]]:
    """Yield pictures in groups that fit in memory."""
    group: list[WholeRecord] = []
    held = 0
    for one in records:
        if group and (len(group) == _GROUP_ROWS or held + one.nbytes > _GROUP_BYTES):
            yield group
            group, held = [], 0
        group.append(one)
        held += one.nbytes
    if group:
        yield group
