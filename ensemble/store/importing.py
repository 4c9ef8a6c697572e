"""Imports a store from a Parquet file that `exporting` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq

from landseer.ensemble.errors import InvalidInput, NotFound, ProfileMismatch, StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.keypoints.compact import pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.patches import pack_patches, unpack_patches
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.folder import DATA, explain_difference
from landseer.ensemble.store.local_features import pack_features, unpack_features
from landseer.ensemble.store.parquet import About, ExportUnusable, schema_of, to_rows
from landseer.ensemble.store.postgres.postgres_store import PostgresStore
from landseer.ensemble.store.reading import reading, snapshot
from landseer.ensemble.store.record import Record, encode, to_bytes
from landseer.ensemble.store.store import Store
from landseer.ensemble.store.whole import WholeRecord, WholeStore
from landseer.ensemble.store.words import unpack_words

_BATCH = 128
"""Pictures of one transaction."""


class _Coder(NamedTuple):
    """How a store packs one kind of features."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[memoryview], Any]


_CODERS = {
    "locals": _Coder(pack_features, unpack_features),
    "keypoints": _Coder(pack_keypoints, unpack_keypoints),
    "patches": _Coder(pack_patches, unpack_patches),
}


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did."""

    pictures: int
    """In the file."""
    written: int
    """The others were there already, the same."""


def import_store(
    file: Path,
    target: Path | PostgresAddress,
    *,
    limit_bytes: int = 16 * 2**30,
    network: bool = False,
    insecure: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Write the pictures of a file into a store, or into a new one, in the order of the file.

    A store in a folder must not be in use. network: whether the folder may be on a file system of another machine.
    insecure: see `PostgresStore.open`.

    Pictures with the same id are replaced; those that the store has as they are in the file are left alone, so an
    import that was interrupted can be run again. progress: gets the number of pictures that are done, and of all.
    ExportUnusable for a file that is damaged, or is no export; ProfileMismatch if the store was filled by other models;
    StoreUnusable; StoreFull. StoreUnavailable, Unfinished and ImportError for a store in PostgreSQL.
    """
    try:
        # Reads row group by row group, and compares the checksum of each page.
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    with parquet:
        about = _about(parquet, file)
        try:
            if isinstance(target, PostgresAddress):
                store: Store | PostgresStore = _shared(about, parquet.schema_arrow, target, limit_bytes, insecure)
            else:
                _require_same_models(about, target)
                store = _opened(about, parquet.schema_arrow, target, limit_bytes, network)
            try:
                return _import(_rows(parquet, file), about, store, progress, file)
            finally:
                store.close()
        except lmdb.Error as error:
            raise StoreUnusable(
                f"{target} cannot be read ({error}); check the disk, and restore a backup or import into a new folder"
            ) from error


def _about(parquet: pq.ParquetFile, file: Path) -> About:
    """Return what the file says about itself, if its columns are as they should be. ExportUnusable."""
    schema = parquet.schema_arrow
    try:
        about = About.of(schema.metadata)
        sizes = {"descriptor": schema.field("descriptor").type.list_size}
        sizes["reduced"] = schema.field("query_vector").type.list_size
    except (ValueError, KeyError, AttributeError) as error:
        raise ExportUnusable(f"{file} is not the export of a store, or damaged: {error}") from error
    expected = schema_of(about, **sizes)
    if wrong := [field.name for field in expected if not _is_there(field, schema)]:
        raise ExportUnusable(
            f"{file} is not the export of a store: these columns are missing or of another type: {wrong}"
        )
    if parquet.metadata.num_rows != about.pictures:
        raise ExportUnusable(
            f"{file} has {parquet.metadata.num_rows:,} rows, and says that it was written with {about.pictures:,}; "
            "export the store again"
        )
    return about


def _unreadable(file: Path, error: Exception) -> ExportUnusable:
    if not file.exists():
        return ExportUnusable(f"there is no file {file}; give the file that `landseer export-store` wrote")
    return ExportUnusable(f"{file} cannot be read, or is damaged ({error}); export the store again")


def _is_there(field: pa.Field, schema: pa.Schema) -> bool:
    return field.name in schema.names and schema.field(field.name).type.equals(field.type)


def _require_same_models(about: About, folder: Path) -> None:
    """ProfileMismatch if there is a store that was filled by other models."""
    if not (folder / DATA).exists():
        return
    with reading(folder, network=True) as environment, snapshot(folder, environment) as transaction:
        there = WholeStore(folder, environment, transaction).fingerprint
    if there != about.fingerprint:
        difference = explain_difference(there, about.fingerprint, other="in the export")
        raise ProfileMismatch(
            f"{folder} was filled by other models than the export: {difference}. Import into another folder"
        )


def _opened(about: About, schema: pa.Schema, folder: Path, limit_bytes: int, network: bool) -> Store:
    return Store.open(
        folder,
        fingerprint=about.fingerprint,
        limit_bytes=limit_bytes,
        clusters_shape=_clusters_shape(about, schema),
        locals_sha256=about.stamps.get("locals"),
        codebook=about.stamps.get("keypoints"),
        patches_sha256=about.stamps.get("patches"),
        network=network,
    )


def _shared(
    about: About, schema: pa.Schema, address: PostgresAddress, limit_bytes: int, insecure: bool
) -> PostgresStore:
    return PostgresStore.open(
        address,
        fingerprint=about.fingerprint,
        made_by={name: by for name, by in about.stamps.items() if name in _CODERS},
        limit_bytes=limit_bytes,
        clusters_shape=_clusters_shape(about, schema),
        insecure=insecure,
    )


def _clusters_shape(about: About, schema: pa.Schema) -> tuple[int, int]:
    """Return K, which the fingerprint of a profile has, and P."""
    try:
        most = int(json.loads(about.fingerprint)["clusters"])
    except (ValueError, TypeError, KeyError):
        most = Sizes.clusters
    return most, schema.field("query_vector").type.list_size


def _rows(parquet: pq.ParquetFile, file: Path) -> Iterator[list[WholeRecord]]:
    try:
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(batch_size=_BATCH, row_groups=[group]):
                yield list(to_rows(batch))
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(file, error) from error


def _import(
    batches: Iterator[list[WholeRecord]],
    about: About,
    store: Store | PostgresStore,
    progress: Callable[[int, int], None],
    file: Path,
) -> Imported:
    fresh, done, written = store.count() == 0, 0, 0
    words = _takes_words(store, about)
    for rows in batches:
        wanted = [row for row in rows if fresh or not _has(store, row)]
        try:
            if wanted:
                store.put_many([_whole(row, words=words) for row in wanted])
        except (ValueError, InvalidInput) as error:
            where = f"between rows {done:,} and {done + len(rows):,}"
            raise ExportUnusable(f"{file} has a picture {where} that no store takes: {error}") from error
        done, written = done + len(rows), written + len(wanted)
        progress(done, about.pictures)
    return Imported(pictures=done, written=written)


def _takes_words(store: Store | PostgresStore, about: About) -> bool:
    """Return whether a store takes the words of an export, and stamp it with what made them.

    They follow from deep local features and a codebook. A store that has those of another codebook keeps them, and one
    in a database has none.
    """
    words = about.stamps.get("words", "")
    if not words or isinstance(store, PostgresStore) or store.words.codebook not in ("", words):
        return False
    store.words.stamp(words)
    return True


def _whole(row: WholeRecord, *, words: bool) -> Record:
    """Return a record with its features. ValueError."""
    found = row.features
    features = {name: coder.unpack(memoryview(found[name])) for name, coder in _CODERS.items() if name in found}
    return replace(row.record, **features, words=unpack_words(found["words"]) if words and "words" in found else None)


def _has(store: Store | PostgresStore, row: WholeRecord) -> bool:
    """Return whether the store has a picture exactly so."""
    try:
        there = store.get(row.record.id)
    except NotFound:
        return False
    mine, theirs = row.record, there.record
    return (
        encode(mine) == encode(theirs)
        and to_bytes(mine.descriptor) == to_bytes(theirs.descriptor)
        and to_bytes(mine.clusters) == to_bytes(theirs.clusters)
        and mine.thumbnail == theirs.thumbnail
        and all(_packed(store, name, there.key) == row.features.get(name) for name in _CODERS)
    )


def _packed(store: Store | PostgresStore, name: str, key: int) -> bytes | None:
    [found] = getattr(store, name).read([key])
    return None if found is None else _CODERS[name].pack(found)
