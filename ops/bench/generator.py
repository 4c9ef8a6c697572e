"""Entries of an index that are no pictures, with the statistics of real ones: for sizes of which nobody here has any.

What is kept, all fitted on real records:

- Descriptor, query vector and the mean of the clusters are drawn together, from the Gaussian of their joint mean and
  covariance, so that each goes with the others as it does in pictures.
- Clusters lie around their mean as those of one real picture do, `KEPT` of the variance; the rest is drawn from the
  Gaussian that clusters around their mean have in all pictures, its `RANK` strongest directions.
- Things are shown by `EACH` entries, which share part of what is drawn. How much is drawn for each thing, so that the
  cosines of nearest neighbours come out as real ones do.
- How many clusters there are, boxes, places of local features, width and height are those of real records, drawn.

Everything is of unit norm and float16 in the end, as the store keeps it. What is lost is whatever a Gaussian has not:
classes of several things, above all. `likeness` holds the one against the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.store.record import Record

Floats = NDArray[np.float32]
EACH = 8
"""Entries of one thing."""
BLOCK = 2048
"""Entries drawn at a time, and shuffled among themselves: those of one thing do not lie side by side in the store."""
MOST_SHARED = 0.999
"""Share of the variance that entries of one thing may have in common: equal ones would be copies."""
KEPT = 0.7
"""Share of the variance of clusters that follows a real picture: a smoothed bootstrap (Efron 1979)."""
RANK = 64
"""Directions in which clusters are moved away from it."""
LEAST = 3
"""Records without which there is no covariance to speak of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """What real records say of how entries are to be drawn."""

    mean: Floats
    """[D + 2 P]: of descriptor, query vector and mean cluster, one after the other."""
    factor: Floats
    """[R, D + 2 P]: R.T @ R is their covariance."""
    around: Floats
    """[n, K, P]: the clusters of the real pictures less their means; zero beyond what a picture has."""
    within: Floats
    """[R', P]: R'.T @ R' is about their covariance, its trace exactly."""
    shared: Floats
    """[n]: shares of the variance that entries of one thing have in common, to be drawn from."""
    patterns: Sequence[Record]
    """[n]: what has no distribution of ours is taken from these."""

    @property
    def size(self) -> int:
        """D."""
        return len(self.patterns[0].descriptor)


def fit(records: Sequence[Record]) -> Fit:
    """Fit real records; those with fewer than two clusters are left out. ValueError if hardly any are left."""
    whole = [record for record in records if len(record.clusters) > 1]
    if len(whole) < LEAST:
        raise ValueError(f"got {len(whole)} records with two clusters or more; expected at least {LEAST} to fit")
    joint = np.stack([_joint(record) for record in whole])
    mean, around = joint.mean(axis=0), [_around(record) for record in whole]
    first = Fit(
        mean=mean,
        factor=_factor(joint - mean, freedom=len(joint) - 1),
        around=_stacked(around),
        within=_strongest(_factor(np.concatenate(around), freedom=sum(map(len, around))), RANK),
        shared=np.empty(0, np.float32),
        patterns=whole,
    )
    return _with_things(first, np.sort(nearest_cosines(joint[:, : first.size])))


def entries(fitted: Fit, count: int, *, seed: int) -> Iterator[list[Record]]:
    """Yield `count` records in blocks, the same for the same seed; their ids are those of `entry_id`."""
    for start in range(0, count, BLOCK):
        draws = np.random.default_rng((seed, start))
        size = min(BLOCK, count - start)
        vectors, clusters, patterns = _drawn(fitted, size, draws)
        yield [
            _entry(entry_id(start + place), vectors[row], clusters[row], fitted.patterns[patterns[row]])
            for place, row in enumerate(draws.permutation(size))
        ]


def entry_id(number: int) -> str:
    """Return the id of the entry of that number, from 0."""
    return f"generated/{number:08d}"


def nearest_cosines(vectors: Floats) -> Floats:
    """Return each vector's cosine with the nearest other. vectors: [n, D], unit norm → [n]."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    found: Floats = cosines.max(axis=1)
    return found


def _joint(record: Record) -> Floats:
    mean = record.clusters.astype(np.float32).mean(axis=0)
    return np.concatenate([record.descriptor.astype(np.float32), record.query_vector.astype(np.float32), mean])


def _around(record: Record) -> Floats:
    """Return the clusters less their mean [k, P]."""
    clusters = record.clusters.astype(np.float32)
    return np.asarray(clusters - clusters.mean(axis=0), np.float32)


def _stacked(around: Sequence[Floats]) -> Floats:
    """Return arrays [k, P] as one [n, K, P], zero beyond each."""
    stacked = np.zeros((len(around), max(map(len, around)), around[0].shape[1]), np.float32)
    for row, one in zip(stacked, around, strict=True):
        row[: len(one)] = one
    return stacked


def _factor(centred: Floats, *, freedom: int) -> Floats:
    """Return R [min(n, D), D] with R.T @ R = centred.T @ centred / freedom; by QR, so it may be singular."""
    upper = np.linalg.qr(centred.astype(np.float64), mode="r")
    return np.asarray(upper / np.sqrt(freedom), np.float32)


def _strongest(factor: Floats, rank: int) -> Floats:
    """Return the factor [rank, D] of the strongest directions of R.T @ R, stretched to the same trace."""
    _, strengths, directions = np.linalg.svd(factor, full_matrices=False)
    kept = strengths[:rank, None] * directions[:rank]
    return np.asarray(kept * np.linalg.norm(strengths) / np.linalg.norm(strengths[:rank]), np.float32)


def _with_things(first: Fit, nearest: Floats) -> Fit:
    """Add the shares of things. nearest: [n], the cosines of real nearest neighbours, sorted.

    Two entries of one thing have the cosine |m|^2 + share (1 - |m|^2) in the mean, m the mean descriptor. The nearest
    of several is nearer than that, by what a first draw shows at each quantile.
    """
    common = float(np.square(first.mean[: first.size]).sum())

    def with_(cosines: Floats) -> Fit:
        shares = np.clip((cosines - common) / (1.0 - common), 0.0, MOST_SHARED)
        return replace(first, shared=shares.astype(np.float32))

    vectors, *_ = _drawn(with_(nearest), BLOCK, np.random.default_rng(0))
    places = (np.arange(len(nearest)) + 0.5) / len(nearest)
    missed = np.quantile(nearest_cosines(_unit(vectors[:, : first.size])), places) - nearest
    return with_(nearest - missed.astype(np.float32))


def _drawn(fitted: Fit, count: int, draws: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Draw thing after thing: vectors [count, D + 2 P] and clusters [count, K, P], not yet unit, and patterns [count].

    patterns: rows of `Fit.patterns`; entries of one thing have the same.
    """
    things = -(-count // EACH)
    shares = np.repeat(draws.choice(fitted.shared, things), EACH)[:count]
    patterns = np.repeat(draws.integers(len(fitted.patterns), size=things), EACH)[:count]
    rank, (inner, size) = len(fitted.factor), fitted.within.shape
    vectors = fitted.mean + _mixed(shares, (rank,), draws) @ fitted.factor
    moved = _mixed(shares, (fitted.around.shape[1], inner), draws) @ fitted.within
    clusters = np.float32(np.sqrt(KEPT)) * fitted.around[patterns] + np.float32(np.sqrt(1.0 - KEPT)) * moved
    return vectors, clusters + vectors[:, None, -size:], patterns


def _mixed(shares: Floats, shape: tuple[int, ...], draws: np.random.Generator) -> Floats:
    """Return standard normal numbers [n, *shape], of which entries of one thing share so much of the variance."""
    count, things = len(shares), -(-len(shares) // EACH)
    weights = shares.reshape(count, *(1 for _ in shape))
    common = draws.standard_normal((things, *shape), np.float32).repeat(EACH, axis=0)[:count]
    own = draws.standard_normal((count, *shape), np.float32)
    own *= np.sqrt(1.0 - weights)
    own += np.sqrt(weights) * common
    return own


def _entry(id: str, vector: Floats, clusters: Floats, pattern: Record) -> Record:
    size, reduced = len(pattern.descriptor), len(pattern.query_vector)
    return Record(
        id=id,
        metadata={},
        width=pattern.width,
        height=pattern.height,
        descriptor=_unit(vector[:size]).astype(np.float16),
        query_vector=_unit(vector[size : size + reduced]).astype(np.float16),
        clusters=_unit(clusters[: len(pattern.clusters)]).astype(np.float16),
        boxes=pattern.boxes,
        feature_map=pattern.feature_map,
        model_version=pattern.model_version,
        indexed_at=pattern.indexed_at,
    )


def _unit(rows: Floats) -> Floats:
    """Return rows [..., D] of unit norm."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12), np.float32)
