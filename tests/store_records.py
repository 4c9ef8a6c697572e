"""Small records of a store, for tests that do not care what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store


def open_store(folder: Path) -> Store:
    return Store.open(folder, fingerprint="f")


def record(id: str, seed: int) -> Record:
    """Return a record of random values; the clusters and the thumbnail grow with the seed."""
    draws = np.random.default_rng(seed)
    return Record(
        id=id,
        metadata={"seed": str(seed)},
        width=400,
        height=300,
        descriptor=draws.standard_normal(64).astype(np.float16),
        query_vector=draws.standard_normal(512).astype(np.float16),
        clusters=draws.standard_normal((seed % 9 + 1, 512)).astype(np.float16),
        boxes=np.zeros((1, 5), np.float32),
        feature_map=np.zeros((3, 4), np.uint8),
        model_version="1",
        indexed_at=1e9,
        thumbnail=draws.bytes(100 + 200 * seed),
    )
