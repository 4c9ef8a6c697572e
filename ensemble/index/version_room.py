"""Whether there is disk and memory for another index version."""

from __future__ import annotations

import shutil
from pathlib import Path

from landseer.ensemble.index.faiss_factory import code_bytes, made, sample_size
from landseer.ensemble.index.faiss_index import main_index_of
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.manifest import Manifest, VersionDamaged
from landseer.ensemble.index.mapped_vectors import FILE
from landseer.ensemble.index.versions import Versions
from landseer.ensemble.memory import GIB, memory_left
from landseer.ensemble.store.record import StoreStats

MARGIN = 1.1
"""Times the bytes that are expected."""
BUILDER_BYTES = GIB // 4
"""Memory of the process that builds a version, beside the version."""
COPIES = 3
"""Of the vectors that an index is trained on: as they are read, together, and FAISS's own."""
_ROW_BYTES = 8 + 4 * 32 * 2 + 64
"""Of a picture beside its values: its key, and its neighbours in a graph of HNSW32, the upper levels too."""


class NoRoom(RuntimeError):
    """There is too little disk or memory for another index version."""


def version_bytes(setting: IndexSetting, *, pictures: int, dimension: int, last: Manifest | None) -> int:
    """Return how large the index of so many pictures will be, about: as the last one, or by the size of its codes.

    It is built in memory; on disk `vectors_bytes` come to it. dimension: D; last: of the version before, None without
    any. One of another factory tells nothing. ValueError for a setting that FAISS does not know.
    """
    if last is not None and last.size and last.setting.factory == setting.factory:
        return sum(file.bytes for file in last.files if file.name != FILE) * pictures // last.size
    return pictures * (code_bytes(made(setting.factory, dimension)) + _ROW_BYTES)


def vectors_bytes(setting: IndexSetting, *, pictures: int, dimension: int) -> int:
    """Return how large the vectors of so many pictures are that a version has beside its index; 0 for an exact one."""
    return 0 if main_index_of(setting).exact else 2 * dimension * pictures


def training_bytes(setting: IndexSetting, dimension: int) -> int:
    """Return what training an index takes, before it has any vectors. dimension: D."""
    return COPIES * 4 * dimension * sample_size(made(setting.factory, dimension))


def last_manifest(versions: Versions) -> Manifest | None:
    """Return the manifest of the active version; None without any."""
    number = versions.active
    try:
        return None if number is None else versions.read(number).manifest
    except VersionDamaged:
        return None


def require_disk(stats: StoreStats, store: Path, size: int) -> None:
    """NoRoom if a version of `size` bytes would take the disk that the store needs for its pictures. OSError.

    The store must be able to become twice as large, or as large as its limit, before versions take the rest: without
    a version searches are slower, without room for pictures indexing fails.
    """
    growth = min(max(0, stats.limit_bytes - stats.used_bytes), stats.used_bytes)
    free, needed = shutil.disk_usage(store).free, int(MARGIN * size)
    if free < needed + growth:
        raise NoRoom(
            f"no room for a version beside {store}: {free / GIB:.2f} GiB are free; expected {needed / GIB:.2f} for it, "
            f"and {growth / GIB:.2f} for the store to grow. Give it a larger disk, or keep fewer versions "
            "(--versions-kept)"
        )


def require_memory(size: int, training: int = 0) -> None:
    """NoRoom if the process that builds a version of `size` bytes would take more memory than there is.

    training: what it takes to train it, before it grows to its size.
    """
    left, needed = memory_left(), max(int(MARGIN * size), training) + BUILDER_BYTES
    if left is not None and left < needed:
        raise NoRoom(
            f"no memory to build a version: about {left / GIB:.2f} GiB are left; expected {needed / GIB:.2f}. Raise "
            "the memory limit, or take an index of smaller codes (--index), see docs/operate.md"
        )
