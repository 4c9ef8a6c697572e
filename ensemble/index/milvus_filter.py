"""A search of Milvus among the pictures that a filter lets through.

Filters are answered here, as for every engine, so they mean the same: Milvus has only keys and vectors. It gets the
keys that are let through, or searches all vectors for more candidates, of which the others are dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.index.engines import WIDER, Keys, Vectors
from landseer.ensemble.index.milvus_collection import MilvusCollection
from landseer.ensemble.index.selection import Selection

NAMED = 16_384
"""Most keys that a search names."""
WIDEST = 1024
"""Most candidates of a search whose keys are not named."""


def search_among(
    collection: MilvusCollection, queries: Vectors, k: int, selection: Selection, *, size: int
) -> tuple[Keys, Vectors]:
    """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D] among the keys of a selection.

    size: number of vectors in the collection. Rows that have fewer than others end in keys of -1. IndexUnavailable.
    """
    allowed = np.flatnonzero(selection.allowed)
    if not len(allowed):
        return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    wide = int(WIDER * k * size / len(allowed)) + 32
    if len(allowed) <= NAMED or wide > WIDEST:
        return _named(collection, queries, k, allowed)
    keys, scores = collection.search(queries, wide)
    keys, scores = _first(np.where(selection.has(keys.ravel()).reshape(keys.shape), keys, -1), scores, k)
    few = np.flatnonzero(np.count_nonzero(keys >= 0, axis=1) < min(k, len(allowed)))
    if len(few):
        again = _named(collection, queries[few], k, allowed)
        width = keys.shape[1]
        keys[few], scores[few] = _wide(again[0], width, -1), _wide(again[1], width, -np.inf)
    return keys, scores


def _named(collection: MilvusCollection, queries: Vectors, k: int, allowed: Keys) -> tuple[Keys, Vectors]:
    """Search among named keys, a part of them at a time."""
    parts = [allowed[start : start + NAMED] for start in range(0, len(allowed), NAMED)]
    found = [collection.search(queries, k, f"key in {part.tolist()}") for part in parts]
    keys, scores = (np.concatenate(tables, axis=1) for tables in zip(*found, strict=True))
    return (keys, scores) if len(parts) == 1 else _first(keys, scores, k)


def _first(keys: Keys, scores: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Return the best k of each row; keys of -1 are none."""
    scores = np.where(keys < 0, -np.inf, scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _wide(table: npt.NDArray[Any], width: int, fill: float) -> npt.NDArray[Any]:
    """Return a table of this width."""
    padded = np.full((len(table), width), fill, table.dtype)
    padded[:, : min(width, table.shape[1])] = table[:, :width]
    return padded
