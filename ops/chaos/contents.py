"""All that a store answers, as hashes by name, so that two stores can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store


def contents(store: Store) -> dict[str, str]:
    """Return a hash of each thing that a store returns for each of its pictures. Raises what reading raises."""
    keys = [int(key) for batch, _ in store.vectors.scan() for key in batch]
    found = {"pictures": str(store.stats().pictures), "keys": str(keys)}
    for key, stored in zip(keys, store.by_keys(keys, thumbnails=True), strict=True):
        if stored is None:
            found[f"record {key}"] = "missing"
            continue
        found |= {f"{name} of record {key}": said for name, said in _record(stored.record).items()}
        found[f"id {stored.record.id}"] = str(store.get(stored.record.id).key)
    for noun, features in (
        ("keypoints", store.keypoints),
        ("patches", store.patches),
        ("local features", store.locals),
    ):
        for key, one in zip(keys, features.read(keys), strict=True):
            found[f"{noun} of record {key}"] = _hash(one)
    for name, array in zip(("clusters", "cluster counts"), store.vectors.clusters(keys), strict=True):
        found[name] = _hash(array)
    for key, row in zip(keys, store.vectors.descriptors(keys), strict=True):
        found[f"vector {key}"] = _hash(row)
    return found


def _record(record: Record) -> dict[str, str]:
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: _hash(value) for name, value in fields.items()}


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _feed(digest, getattr(value, field.name))
    else:
        digest.update(repr(value).encode())
