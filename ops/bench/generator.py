"""Generates index entries with the statistics of real pictures, for sizes at which we have no real pictures.

These properties are fitted on real records:

- Descriptor, query vector and the mean of the clusters are drawn together, from a Gaussian with their joint mean and
  covariance, so that they are correlated as in real pictures. Directions are those of every other picture, and the
  variance along them, and beside them, that of the pictures between: pictures lie less in the directions of others
  than in their own, and a covariance of as few directions as pictures would flatter an index that leaves some out.
- Clusters are spread around their mean as in one real picture (`KEPT` of the variance). The rest of the variance is
  drawn from a Gaussian fitted on the clusters of all pictures, in its `RANK` strongest directions.
- Each thing is shown by `EACH` entries, which share part of what is drawn, and `NEAR` of them at a time share more. The
  sizes of these parts are drawn per thing, both from one real picture, such that the cosines of pictures with their
  nearest and their tenth neighbours match the real ones. With one level, entries that have as near a nearest neighbour
  as real pictures have a tenth that is too far, or as near as the first.
- The number of clusters, boxes, positions of local features, width and height are copied from random real records.

In the end everything has unit norm and is float16, as in the store. What a Gaussian cannot express is lost, above all
classes with several things. `likeness` compares generated and real entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.store.record import Record

Floats = NDArray[np.float32]
EACH, NEAR = 32, 4
"""Entries of a thing, and of them those that share most."""
THING = "thing"
"""The field of an entry's metadata that says which thing it shows: a number."""
TENTH = 10
"""The neighbour beside the nearest whose cosine is matched."""
ROUNDS = 4
"""How often the shares are corrected by what they lead to."""
BLOCK = 2048
"""Entries drawn and shuffled together, so that entries of one thing are not adjacent in the store."""
MOST_SHARED = 0.999
"""Maximum share of the variance that entries of one thing have in common; 1 would make them copies."""
KEPT = 0.7
"""Share of the clusters' variance that follows a real picture: a smoothed bootstrap (Efron 1979)."""
RANK = 64
"""Number of directions in which clusters are moved away from the real picture's."""
LEAST = 3
"""Minimum number of records to estimate a covariance from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryDistribution:
    """The distribution that entries are drawn from, fitted on real records."""

    mean: Floats
    """[D + 2 P]: mean of descriptor, query vector and mean cluster, concatenated."""
    factor: Floats
    """[R, D + 2 P]: R.T @ R is their covariance, but for `rest`."""
    rest: Floats
    """[D + 2 P]: standard deviation of each of their values beside the directions of `factor`."""
    around: Floats
    """[n, K, P]: the clusters of the real pictures minus their means; zero-padded."""
    within: Floats
    """[R', P]: R'.T @ R' approximates their covariance and has exactly its trace."""
    shared: Floats
    """[n, 2]: shares of the variance that all entries of a thing, and its nearest, have in common; drawn per thing."""
    patterns: Sequence[Record]
    """[n]: records from which the values without a fitted distribution are copied."""

    @property
    def size(self) -> int:
        """Dimension D of the descriptor."""
        return len(self.patterns[0].descriptor)


def fit(records: Sequence[Record]) -> EntryDistribution:
    """Fit real records; ignores those with fewer than two clusters. ValueError if fewer than `LEAST` remain."""
    whole = [record for record in records if len(record.clusters) > 1]
    if len(whole) < LEAST:
        raise ValueError(f"got {len(whole)} records with two clusters or more; expected at least {LEAST} to fit")
    joint = np.stack([_joint(record) for record in whole])
    mean, around = joint.mean(axis=0), [_around(record) for record in whole]
    factor, rest = _directions((joint - mean)[::2], (joint - mean)[1::2])
    first = EntryDistribution(
        mean=mean,
        factor=factor,
        rest=rest,
        around=_stacked(around),
        within=_strongest(_factor(np.concatenate(around), freedom=sum(map(len, around))), RANK),
        shared=np.empty((0, 2), np.float32),
        patterns=whole,
    )
    return _with_things(first, joint[:, : first.size])


def entries(fitted: EntryDistribution, count: int, *, seed: int) -> Iterator[list[Record]]:
    """Yield `count` records in blocks, deterministic in the seed; `entry_id` gives their ids."""
    for start in range(0, count, BLOCK):
        draws = np.random.default_rng((seed, start))
        size = min(BLOCK, count - start)
        vectors, clusters, patterns = _drawn(fitted, size, draws)
        yield [
            _entry(
                entry_id(start + place),
                str((start + row) // EACH),
                vectors[row],
                clusters[row],
                fitted.patterns[patterns[row]],
            )
            for place, row in enumerate(draws.permutation(size))
        ]


def entry_id(number: int) -> str:
    """Return the id of entry `number`, counted from 0."""
    return f"generated/{number:08d}"


def nearest_cosines(vectors: Floats, rank: int = 1) -> Floats:
    """Return each vector's cosine with its nearest neighbour, or with that of another rank, at most the farthest.

    vectors: [n, D], unit norm → [n].
    """
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    place = max(1, len(vectors) - rank)
    found: Floats = np.partition(cosines, place, axis=1)[:, place]
    return found


def _joint(record: Record) -> Floats:
    mean = record.clusters.astype(np.float32).mean(axis=0)
    return np.concatenate([record.descriptor.astype(np.float32), record.query_vector.astype(np.float32), mean])


def _around(record: Record) -> Floats:
    """Return the clusters minus their mean [k, P]."""
    clusters = record.clusters.astype(np.float32)
    return np.asarray(clusters - clusters.mean(axis=0), np.float32)


def _stacked(around: Sequence[Floats]) -> Floats:
    """Stack arrays [k, P] into one [n, K, P], zero-padded."""
    stacked = np.zeros((len(around), max(map(len, around)), around[0].shape[1]), np.float32)
    for row, one in zip(stacked, around, strict=True):
        row[: len(one)] = one
    return stacked


def _directions(ours: Floats, theirs: Floats) -> tuple[Floats, Floats]:
    """Return the factor [R, D] and the rest [D] of centred vectors `theirs` [m, D]; directions are those of `ours`."""
    _, strengths, directions = np.linalg.svd(ours, full_matrices=False)
    directions = directions[strengths > 1e-5 * strengths[0]]
    along = theirs @ directions.T
    factor = np.sqrt(np.square(along).mean(axis=0))[:, None] * directions
    rest = np.sqrt(np.square(theirs - along @ directions).mean(axis=0))
    return np.asarray(factor, np.float32), np.asarray(rest, np.float32)


def _factor(centred: Floats, *, freedom: int) -> Floats:
    """Return R [min(n, D), D] with R.T @ R = centred.T @ centred / freedom; by QR, so singular is fine."""
    upper = np.linalg.qr(centred.astype(np.float64), mode="r")
    return np.asarray(upper / np.sqrt(freedom), np.float32)


def _strongest(factor: Floats, rank: int) -> Floats:
    """Return the factor [rank, D] of the strongest directions of R.T @ R, scaled to keep the trace."""
    _, strengths, directions = np.linalg.svd(factor, full_matrices=False)
    kept = strengths[:rank, None] * directions[:rank]
    return np.asarray(kept * np.linalg.norm(strengths) / np.linalg.norm(strengths[:rank]), np.float32)


def _with_things(first: EntryDistribution, vectors: Floats) -> EntryDistribution:
    """Add the shares of things. vectors: [n, D], the real ones, unit norm.

    Two entries that share a part s of the variance have the cosine |m|^2 + s (1 - |m|^2) on average, where m is the
    mean descriptor. The nearest of several is closer than that; draws tell by how much at each quantile.
    """
    common, wanted = float(np.square(first.mean[: first.size]).sum()), _nearness(vectors)
    aimed, places = wanted.copy(), (np.argsort(np.argsort(wanted, axis=0), axis=0) + 0.5) / len(wanted)
    for number in range(ROUNDS):
        found = _with_shares(first, (aimed - common) / (1.0 - common))
        drawn, *_ = _drawn(found, BLOCK, np.random.default_rng(number))
        got = _nearness(_unit(drawn[:, : first.size]), size=len(vectors))
        for kind in range(aimed.shape[1]):
            aimed[:, kind] += wanted[:, kind] - np.quantile(got[:, kind], places[:, kind])
    return _with_shares(first, (aimed - common) / (1.0 - common))


def _with_shares(first: EntryDistribution, shares: Floats) -> EntryDistribution:
    """Return it with these shares [n, 2], within what they can be."""
    possible = np.maximum.accumulate(np.clip(shares, 0.0, MOST_SHARED), axis=1)
    return replace(first, shared=possible.astype(np.float32))


def _nearness(vectors: Floats, size: int | None = None) -> Floats:
    """Return the cosines of vectors [m, D] with their tenth and nearest neighbours, among `size` at a time [m', 2]."""
    size = min(size or len(vectors), len(vectors))
    parts = [vectors[start : start + size] for start in range(0, len(vectors) - size + 1, size)]
    return np.concatenate([np.stack([nearest_cosines(part, rank) for rank in (TENTH, 1)], axis=1) for part in parts])


def _drawn(
    fitted: EntryDistribution, count: int, draws: np.random.Generator
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Draw entries, thing by thing: vectors [count, D + 2 P] and clusters [count, K, P], not yet normed, and patterns.

    patterns: [count], rows of `EntryDistribution.patterns`; the nearest entries of a thing have the same.
    """
    things = -(-count // EACH)
    shares = np.repeat(draws.choice(fitted.shared, things), EACH, axis=0)[:count]
    patterns = np.repeat(draws.integers(len(fitted.patterns), size=-(-count // NEAR)), NEAR)[:count]
    rank, (inner, size) = len(fitted.factor), fitted.within.shape
    vectors = fitted.mean + _mixed(shares, (rank,), draws) @ fitted.factor
    vectors += fitted.rest * _mixed(shares, fitted.rest.shape, draws)
    moved = _mixed(shares, (fitted.around.shape[1], inner), draws) @ fitted.within
    clusters = np.float32(np.sqrt(KEPT)) * fitted.around[patterns] + np.float32(np.sqrt(1.0 - KEPT)) * moved
    return vectors, clusters + vectors[:, None, -size:], patterns


def _mixed(shares: Floats, shape: tuple[int, ...], draws: np.random.Generator) -> Floats:
    """Return standard normal numbers [n, *shape] of entries, thing by thing.

    shares: [n, 2] of the variance that each has in common with its thing, and with the nearest of it.
    """
    count = len(shares)
    thing, near = (column.reshape(count, *(1 for _ in shape)) for column in shares.T)

    def alike(size: int) -> Floats:
        return draws.standard_normal((-(-count // size), *shape), np.float32).repeat(size, axis=0)[:count]

    own = alike(1)
    own *= np.sqrt(1.0 - near)
    own += np.sqrt(near - thing) * alike(NEAR)
    own += np.sqrt(thing) * alike(EACH)
    return own


def _entry(id: str, thing: str, vector: Floats, clusters: Floats, pattern: Record) -> Record:
    size, reduced = len(pattern.descriptor), len(pattern.query_vector)
    return Record(
        id=id,
        metadata={THING: thing},
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
