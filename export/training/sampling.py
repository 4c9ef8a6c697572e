"""Choose the photographs of batches, deterministically from the arguments and the state of `draw`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
SPREAD = 0.05
"""Standard deviation of the jitter of log aspect ratios between epochs."""


def batches_of_one_shape(aspects: Sequence[float], size: int, draw: np.random.Generator) -> list[list[int]]:
    """Split rows into batches whose pictures have nearly one aspect ratio (width / height), each row once.

    Group-size sampling, as in CiDeR: a batch is resized to one size, so nothing is padded and little is distorted. Rows
    are sorted by jittered aspect ratio, so that batches vary between epochs, then cut into batches, which are shuffled.
    The last cut may be smaller.
    """
    place = np.log(np.asarray(aspects, np.float64)) + draw.normal(scale=SPREAD, size=len(aspects))
    order = np.argsort(place, kind="stable")
    cut = [order[start : start + size].tolist() for start in range(0, len(order), size)]
    return [cut[number] for number in draw.permutation(len(cut))]


def batches_of_classes(labels: Sequence[int], classes: int, each: int, draw: np.random.Generator) -> list[list[int]]:
    """Return batches of `classes` different classes with `each` different photographs of each, P x K.

    A class gives as many groups of K as it has photographs for; smaller remainders are left out, as are groups of fewer
    than P classes at the end. Another epoch draws differently.
    """
    groups = [
        (label, members[start : start + each].tolist())
        for label, members in _shuffled(labels, draw).items()
        for start in range(0, len(members) - each + 1, each)
    ]
    waiting = deque(groups[number] for number in draw.permutation(len(groups)))
    found: list[list[int]] = []
    while True:
        picked: dict[int, list[int]] = {}
        again = []
        while waiting and len(picked) < classes:
            label, some = waiting.popleft()
            if label in picked:
                again.append((label, some))
            else:
                picked[label] = some
        if len(picked) < classes:
            return found
        found.append([row for some in picked.values() for row in some])
        waiting.extendleft(reversed(again))


def rows_of_classes(labels: Sequence[int], most: int, draw: np.random.Generator) -> list[int]:
    """Draw at most `most` rows class by class, so that photographs come with others of their class. Ascending."""
    members = list(_shuffled(labels, draw).values())
    order = [int(row) for number in draw.permutation(len(members)) for row in members[number]]
    return sorted(order[:most])


def _shuffled(labels: Sequence[int], draw: np.random.Generator) -> dict[int, Ids]:
    array = np.asarray(labels)
    return {int(label): draw.permutation(np.flatnonzero(array == label)) for label in np.unique(array)}


def queries_with_positives(
    positives: Mapping[int, Sequence[int]], count: int, draw: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw `count` different queries (all if there are fewer), each with one of its positives."""
    queries = sorted(row for row, others in positives.items() if others)
    chosen = draw.permutation(len(queries))[:count]
    return [(queries[place], int(draw.choice(np.asarray(positives[queries[place]])))) for place in chosen]


def same_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """Return the other rows of each row's class."""
    array = np.asarray(labels)
    members = {int(label): np.flatnonzero(array == label) for label in np.unique(array)}
    return {row: [int(other) for other in members[int(label)] if other != row] for row, label in enumerate(array)}


def hard_negatives(query: Floats, label: int, pool: Floats, labels: Ids, count: int) -> list[int]:
    """Return the pool indices of the most similar photographs of other classes, at most one per class.

    query: unit [D], pool: unit [N, D], labels: [N]. Fewer than `count` if there are fewer other classes. Radenović,
    Tolias and Chum 2018.
    """
    found: list[int] = []
    seen = {label}
    for place in np.argsort(-(pool @ query), kind="stable"):
        if int(labels[place]) not in seen:
            seen.add(int(labels[place]))
            found.append(int(place))
            if len(found) == count:
                break
    return found


def hard_triplets(
    pool: Floats, labels: Ids, count: int, draw: np.random.Generator, *, margin: float = 0.1, hardest: int = 25
) -> list[tuple[int, int, int]]:
    """Draw `count` triplets (query, positive, negative) of pool indices among those with a large loss.

    Gordo et al. 2017: for a query drawn from the pool, one of the `hardest` triplets with a positive loss. Queries
    without one are skipped, so there may be fewer than `count`, and none once the pool is memorised.
    pool: unit [N, D], labels: [N].
    """
    found: list[tuple[int, int, int]] = []
    queries = np.concatenate([draw.permutation(len(pool)) for _ in range(-(-count // max(len(pool), 1)))])
    for query in queries[:count]:
        candidates = _with_loss(pool, labels, int(query), margin, hardest)
        if len(candidates):
            positive, negative = candidates[draw.integers(len(candidates))]
            found.append((int(query), int(positive), int(negative)))
    return found


def _with_loss(pool: Floats, labels: Ids, query: int, margin: float, hardest: int) -> Ids:
    """Return (positive, negative) of the triplets with the largest losses above 0. → [n, 2]."""
    distances = 2.0 - 2.0 * (pool @ pool[query])
    same = labels == labels[query]
    same[query] = False
    positives, negatives = np.flatnonzero(same), np.flatnonzero(labels != labels[query])
    losses = (margin + distances[positives][:, None] - distances[negatives]).ravel()
    order = np.argsort(-losses, kind="stable")[:hardest]
    kept = order[losses[order] > 0]
    return np.stack([positives[kept // max(len(negatives), 1)], negatives[kept % max(len(negatives), 1)]], axis=1)
