"""A temporary store of generated entries, written as the service writes it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.store.record import Record, encode, to_bytes
from landseer.ensemble.store.store import Store
from landseer.ensemble.store.widening import widened
from landseer.ops.bench.generated_features import FeaturePool
from landseer.ops.bench.generator import THING, EntryDistribution, entries
from landseer.ops.errors import OpsError

PAGE = 4096
HEADER = 16
"""Bytes that LMDB adds to each value."""
INLINE = 2036
"""The largest value, with its header, that shares a page with others."""
ENTRY = 440
"""Approximate bytes of an entry beside its values: its id, its checksums, its places in the trees."""
SPARE = 2 * 2**30
"""Bytes that must stay free on the disk."""
FEATURES = 8 * PAGE
"""Bytes of the keypoints and patches of an entry, at most."""
BATCH = 256
"""Entries that get keypoints in one transaction."""


@dataclass(frozen=True, kw_only=True)
class WrittenStore:
    """The written store."""

    entries: int
    bytes: int
    """Size of the data file."""
    seconds: float
    """To generate the entries and to write them; each uses one core."""
    featured: int = 0
    """Entries with keypoints."""


def expected_bytes(patterns: Sequence[Record], count: int) -> int:
    """Return the approximate bytes of a store of `count` entries like these."""
    return int(count * (ENTRY + sum(map(_pages, patterns)) / len(patterns)))


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
    folder: Path,
    fitted: EntryDistribution,
    *,
    profile: Profile,
    count: int,
    seed: int,
    progress: Callable[[int], None],
    described: bool = False,
) -> WrittenStore:
    """Write `count` entries into a new store. `progress` is called with the size of each block.

    described: write only what `only_described` leaves of each.
    """
    began, shape = time.monotonic(), (profile.sizes.clusters, profile.sizes.reduced)
    kept = only_described if described else list
    limit = limit_bytes(expected_bytes(kept(fitted.patterns), count))
    store = Store.open(folder, fingerprint=profile.fingerprint, clusters_shape=shape, limit_bytes=limit)
    try:
        for block in _ahead(entries(fitted, count, seed=seed)):
            store.put_many(kept(block))
            progress(len(block))
        size = store.stats().file_bytes
    finally:
        store.close()
    return WrittenStore(entries=count, bytes=size, seconds=time.monotonic() - began)


def only_described(records: Sequence[Record]) -> list[Record]:
    """Return them without what a search by the global descriptor never reads: a quarter of the bytes remains."""
    return [
        replace(one, clusters=one.clusters[:0], boxes=one.boxes[:0], feature_map=one.feature_map[:0]) for one in records
    ]


def open_with_features(folder: Path, profile: Profile, limit: int) -> Store:
    """Open a generated store whose entries may have keypoints and patches. limit: bytes. Errors of `Store.open`."""
    return Store.open(
        folder,
        fingerprint=profile.fingerprint,
        clusters_shape=(profile.sizes.clusters, profile.sizes.reduced),
        limit_bytes=limit,
        codebook=shipped_codebook().fingerprint,
        patches_sha256=profile.patches_sha256 or None,
    )


def give_features(store: Store, pool: FeaturePool, ids: Sequence[str], *, near: int, seed: int) -> int:
    """Write keypoints and patches into the records of these entries and of the `near` nearest of each.

    To all entries they would add 32 KiB each. Returns how many entries have some.
    """
    keys = np.union1d(*_nearest(store, ids, near))
    for start in range(0, len(keys), BATCH):
        found = store.by_keys(keys[start : start + BATCH].tolist())
        store.put_many([_with_features(one.record, pool, one.key, seed) for one in found if one is not None])
    return store.stats().keypoints


def _nearest(store: Store, ids: Sequence[str], near: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the keys of the entries [n], and of the nearest of each [n, near], by exact search."""
    asked = [store.get(id) for id in ids]
    queries = np.stack([one.record.descriptor for one in asked]).astype(np.float32)
    best = faiss.ResultHeap(len(queries), near, keep_max=True)
    for keys, rows in store.vectors.scan():
        scores, places = faiss.knn(queries, widened(rows), min(near, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, keys[places])
    return np.array([one.key for one in asked], np.int64), best.I


def _with_features(record: Record, pool: FeaturePool, entry: int, seed: int) -> Record:
    keypoints, patches = pool.drawn(int(record.metadata[THING]), entry, seed=seed)
    return replace(record, keypoints=keypoints, patches=patches)


def _ahead(blocks: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """Yield blocks while the next one is generated in another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="drawing") as drawing:
        waiting = drawing.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = drawing.submit(next, blocks, None)
            yield block


def _pages(record: Record) -> int:
    """Return the bytes of the pages that a record fills; each of its values has its own pages, but for small ones."""
    sizes = (len(encode(record)), len(to_bytes(record.descriptor)), len(to_bytes(record.clusters)))
    return sum(map(_page_bytes, sizes))


def _page_bytes(size: int) -> int:
    """Return the bytes that a value takes: whole pages, or its part of a page of several."""
    taken = size + HEADER
    return PAGE // (PAGE // taken) if taken <= INLINE else -(-taken // PAGE) * PAGE
