"""Compares generated entries with real ones, by the cosines that search and re-ranking compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.store.record import Record
from landseer.ops.bench.generator import nearest_cosines

Floats = NDArray[np.float32]
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles that are reported."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """One quantity, of real and of generated entries."""

    name: str
    real: tuple[float, ...]
    """Its quantiles at `SHARES`."""
    generated: tuple[float, ...]


def likeness(real: Sequence[Record], generated: Sequence[Record]) -> list[Likeness]:
    """Compare equally many of both: more entries lie closer to each other, so extra generated ones are ignored."""
    ours, theirs = quantities(generated[: len(real)]), quantities(real)
    return [Likeness(name=name, real=_told(theirs[name]), generated=_told(ours[name])) for name in theirs]


def quantities(records: Sequence[Record]) -> Mapping[str, Floats]:
    """Return the values of each quantity. records: at least three, each with at least one cluster."""
    descriptors = np.stack([record.descriptor for record in records]).astype(np.float32)
    queries = np.stack([record.query_vector for record in records]).astype(np.float32)
    return {
        "descriptors of two pictures": _pairs(descriptors),
        "descriptor and its nearest neighbour's": nearest_cosines(descriptors),
        "query vectors of two pictures": _pairs(queries),
        "two clusters of one picture": np.concatenate([_pairs(_clusters(record)) for record in records]),
        "clusters of two pictures": np.concatenate(list(_across(records))),
        "query vector and the nearest neighbour's best cluster": _best(records, descriptors, queries),
        "clusters of a picture (how many)": np.array([len(record.clusters) for record in records], np.float32),
    }


def _clusters(record: Record) -> Floats:
    return record.clusters.astype(np.float32)


def _pairs(rows: Floats) -> Floats:
    """Return the inner products of all pairs of rows [n, D] → [n (n - 1) / 2]."""
    return np.asarray((rows @ rows.T)[np.triu_indices(len(rows), 1)], np.float32)


def _across(records: Sequence[Record]) -> Iterator[Floats]:
    """Yield the cosines of each picture's clusters with those of a distant one in the list."""
    for place, record in enumerate(records):
        other = records[(place + len(records) // 2) % len(records)]
        yield (_clusters(record) @ _clusters(other).T).ravel()


def _best(records: Sequence[Record], descriptors: Floats, queries: Floats) -> Floats:
    cosines = descriptors @ descriptors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(axis=1)
    return np.array([(_clusters(records[i]) @ query).max() for i, query in zip(nearest, queries, strict=True)])


def _told(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, SHARES))
