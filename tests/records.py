"""A record of which a test says only what matters to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from landseer.ensemble.store.record import Record


def plain_record(id: str, *, reduced: int, **changes: Any) -> Record:
    """Return a small record without clusters and features, with these changes. reduced: P."""
    fields: dict[str, Any] = {
        "id": id,
        "metadata": {},
        "width": 40,
        "height": 30,
        "descriptor": np.ones(8, np.float16),
        "query_vector": np.zeros(reduced, np.float16),
        "clusters": np.zeros((0, reduced), np.float16),
        "boxes": np.zeros((0, 5), np.float32),
        "feature_map": np.zeros((0, 4), np.uint8),
        "model_version": "1",
        "indexed_at": 1e9,
    }
    return Record(**(fields | changes))


def unit_halves(*shape: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Return random rows at unit norm, float16 [..., D]."""
    rows = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float16)
