"""Exports a store, whether or not a server uses it, to a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq

from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.store.folder import is_no_room, sync_names
from landseer.ensemble.store.parquet import About, ExportUnusable, schema_of, to_batch
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


def export_store(
    folder: Path, file: Path, *, network: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> Exported:
    """Write what the store in `folder` holds to a new file. A kill at any moment leaves the complete file, or none.

    progress: gets the number of pictures that are done, and of all.
    StoreUnusable if there is no sound store, or no picture in it; ExportUnusable if the file is there or cannot be
    written; StoreFull if there is no room.
    """
    if file.exists() or file.is_symlink():
        raise ExportUnusable(f"{file} is there already; name a file that does not exist yet")
    aside = file.with_name(file.name + BESIDE)
    try:
        with reading(folder, network=network) as environment, snapshot(folder, environment) as transaction:
            file.parent.mkdir(parents=True, exist_ok=True)
            about = _write(WholeStore(folder, environment, transaction), folder, aside, progress)
        size = aside.stat().st_size
        aside.replace(file)
        sync_names(file.parent)
    except OSError as error:
        if is_no_room(error):
            raise StoreFull(f"there is no room for {file}; nothing of it is left. Free some space") from error
        raise ExportUnusable(f"{file} cannot be written ({error}); the store is unchanged") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return Exported(about=about, bytes=size)


def _write(store: WholeStore, folder: Path, aside: Path, progress: Callable[[int, int], None]) -> About:
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
        raise StoreUnusable(f"{folder} has no pictures, so there is nothing to export")
    schema = schema_of(about, descriptor=len(first[0].record.descriptor), reduced=len(first[0].record.query_vector))
    with aside.open("wb") as target:
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
