"""How a set of vectors lies around each of its vectors: what makes a nearest-neighbour index's work easy or hard.

And how much of a vector lies in few directions: what an index may leave out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.store.record import Record
from landseer.ops.bench.likeness import SHARES, Likeness

Floats = NDArray[np.float32]
NEIGHBOURS = 20
"""Neighbours that the dimension is estimated from."""
DIRECTIONS = 128
"""Directions of other vectors, fewer if there are not that many."""
LEAST_DISTANCE = 1e-6
"""Below it, a neighbour is a copy: the logarithm of its distance says nothing."""


def neighbourhoods(real: Sequence[Record], generated: Sequence[Record]) -> list[Likeness]:
    """Compare equally many descriptors of both; more would lie closer to each other."""
    ours, theirs = (_quantities(_descriptors(some[: len(real)])) for some in (generated, real))
    return [Likeness(name=name, real=_told(theirs[name]), generated=_told(ours[name])) for name in theirs]


def local_dimension(distances: Floats) -> Floats:
    """Return the local intrinsic dimension [n] around vectors, from the distances [n, K] of their neighbours, sorted.

    The maximum-likelihood estimate of Levina and Bickel (2004): the inverse mean of log(farthest / distance).
    """
    ratios = np.log(distances[:, -1:] / np.maximum(distances[:, :-1], LEAST_DISTANCE))
    return np.asarray(1.0 / np.maximum(ratios.mean(axis=1), LEAST_DISTANCE), np.float32)


def captured(vectors: Floats, count: int) -> Floats:
    """Return the share of every other vector [n / 2] that lies in the `count` strongest directions of the others.

    vectors: [n, D]; what they have in common, their mean, is left out.
    """
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred[::2], full_matrices=False)
    theirs = centred[1::2]
    along = np.square(theirs @ directions[:count].T).sum(axis=1)
    return np.asarray(along / np.maximum(np.square(theirs).sum(axis=1), 1e-12), np.float32)


def _quantities(vectors: Floats) -> Mapping[str, Floats]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = -np.sort(-cosines, axis=1)[:, : min(NEIGHBOURS, len(vectors) - 1)]
    distances = np.sqrt(np.maximum(2.0 - 2.0 * nearest, 0.0))
    count = min(DIRECTIONS, len(vectors) // 4)
    return {
        "distance to the nearest": distances[:, 0],
        "distance to the 10th nearest": distances[:, min(9, distances.shape[1] - 1)],
        f"local intrinsic dimension ({distances.shape[1]} neighbours)": local_dimension(distances),
        f"share of it in the {count} strongest directions of others": captured(vectors, count),
    }


def _descriptors(records: Sequence[Record]) -> Floats:
    return np.stack([record.descriptor for record in records]).astype(np.float32)


def _told(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, SHARES))
