"""A store of generated entries, written as the service writes it, and gone when the benchmark ends."""

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
from landseer.ops.bench.generator import Fit, entries
from landseer.ops.errors import OpsError

PAGE = 4096
HEADER = 16
"""Bytes that LMDB adds to a value."""
TREE = 1.02
"""What the branches of its trees add, about."""
SPARE = 2 * 2**30
"""Bytes that must stay free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of the entries."""

    entries: int
    bytes: int
    """Of the data file."""
    seconds: float
    """To generate and write them, on one core each."""


def expected_bytes(patterns: Sequence[Record], count: int) -> int:
    """Return about how much a store of `count` entries like these takes."""
    return int(count * TREE * sum(map(_pages, patterns)) / len(patterns))


def require_room(folder: Path, needed: int) -> None:
    """Raise OpsError unless the disk of that folder has so many bytes and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise OpsError(
            f"the store would take {needed / 2**30:.1f} GiB and {SPARE / 2**30:.0f} GiB must stay free, but {folder} "
            f"has {free / 2**30:.1f} GiB; free some, name another disk with --scratch, or ask for fewer --entries"
        )


def limit_bytes(needed: int) -> int:
    """Return the store's limit: more than it will need, as a limit costs nothing until it is used."""
    return int(needed * 1.25) + 2**30


def write(
    folder: Path, fitted: Fit, *, profile: Profile, count: int, seed: int, progress: Callable[[int], None]
) -> Written:
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
    return Written(entries=count, bytes=size, seconds=time.monotonic() - began)


def _ahead(blocks: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """Yield blocks, the next of which is drawn meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="drawing") as drawing:
        waiting = drawing.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = drawing.submit(next, blocks, None)
            yield block


def _pages(record: Record) -> int:
    """Return the bytes of the pages that a record fills; each of its values has pages of its own."""
    sizes = (len(encode(record)), len(to_bytes(record.descriptor)), len(to_bytes(record.clusters)))
    return sum(-(-(size + HEADER) // PAGE) * PAGE for size in sizes)
