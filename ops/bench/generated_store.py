"""A temporary store of generated entries, written as the service writes it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record, encode, to_bytes
from landseer.ensemble.store.store import Store
from landseer.ops.bench.generator import EntryDistribution, entries
from landseer.ops.errors import OpsError

PAGE = 4096
HEADER = 16
"""Bytes that LMDB adds to each value."""
TREE = 1.02
"""Approximate overhead of the branch pages of its trees."""
SPARE = 2 * 2**30
"""Bytes that must stay free on the disk."""


@dataclass(frozen=True, kw_only=True)
class WrittenStore:
    """The written store."""

    entries: int
    bytes: int
    """Size of the data file."""
    seconds: float
    """To generate the entries and to write them; each uses one core."""


def expected_bytes(patterns: Sequence[Record], count: int) -> int:
    """Return the approximate bytes of a store of `count` entries like these."""
    return int(count * TREE * sum(map(_pages, patterns)) / len(patterns))


def require_room(folder: Path, needed: int) -> None:
    """Raise OpsError unless the folder's disk has `needed` bytes free, and `SPARE` more."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise OpsError(
            f"the store needs {needed / 2**30:.1f} GiB and {SPARE / 2**30:.0f} GiB must stay free, but {folder} "
            f"has {free / 2**30:.1f} GiB; free some, choose another disk with --scratch, or use fewer --entries"
        )


def limit_bytes(needed: int) -> int:
    """Return the store's limit, with room to spare: a limit costs nothing until it is used."""
    return int(needed * 1.25) + 2**30


def write(
    folder: Path, fitted: EntryDistribution, *, profile: Profile, count: int, seed: int, progress: Callable[[int], None]
) -> WrittenStore:
    """Write `count` entries into a new store. `progress` is called with the size of each block."""
    began, shape = time.monotonic(), (profile.sizes.clusters, profile.sizes.reduced)
    limit = limit_bytes(expected_bytes(fitted.patterns, count))
    store = Store.open(folder, fingerprint=profile.fingerprint, clusters_shape=shape, limit_bytes=limit)
    try:
        for block in _ahead(entries(fitted, count, seed=seed)):
            store.put_many(block)
            progress(len(block))
        size = store.stats().file_bytes
    finally:
        store.close()
    return WrittenStore(entries=count, bytes=size, seconds=time.monotonic() - began)


def _ahead(blocks: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """Yield blocks while the next one is generated in another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="drawing") as drawing:
        waiting = drawing.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = drawing.submit(next, blocks, None)
            yield block


def _pages(record: Record) -> int:
    """Return the bytes of the pages that a record fills; each of its values has its own pages."""
    sizes = (len(encode(record)), len(to_bytes(record.descriptor)), len(to_bytes(record.clusters)))
    return sum(-(-(size + HEADER) // PAGE) * PAGE for size in sizes)
