"""Hits as one, near-identical ones or those with the same value of a field: the best stands for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.collection import Collection
from landseer.ensemble.search.ranking import Ranking

Keys = NDArray[np.int64]

COMPARED, LEAST_COMPARED = 10, 100
"""Hits that are compared for each group that is asked for, and at least."""
ALIKE = 0.4
"""Least cosine of the global descriptors of pictures whose keypoints are compared: of copies all have more."""


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Hits that each stand for a group."""

    ranking: Ranking
    others: Mapping[int, Keys] = field(default_factory=dict)
    """The keys of the others of a group, best first, by that of its hit; none for a hit that stands for itself."""
    values: Mapping[int, str] = field(default_factory=dict)
    """The value that a group has in common, by the key of its hit; none for a picture without the field."""


def compared(top_k: int, *, most: int) -> int:
    """Return how many hits are compared for `top_k` groups. most: the most hits of an answer."""
    return min(max(LEAST_COMPARED, COMPARED * top_k), most)


async def grouped(ranking: Ranking, groups: int, collection: Collection) -> Grouped:
    """Return the best hits of at most so many groups of near-identical pictures, in their order.

    A hit joins the first group whose best hit it is near-identical to. No chains: a crop of a crop is compared with the
    original. Overloaded.
    """
    keys, likeness = ranking.keys, await collection.likenesses(ranking.keys)
    left, leaders, others = np.arange(len(keys)), list[int](), dict[int, Keys]()
    while len(left) and len(leaders) < groups:
        leader, left = int(left[0]), left[1:]
        alike = left[likeness[leader, left] >= ALIKE]
        if len(alike):
            same = await collection.keypoint_verifier.near_identical(int(keys[leader]), keys[alike])
            others[int(keys[leader])] = keys[alike[same]]
            left = np.setdiff1d(left, alike[same], assume_unique=True)
        leaders.append(leader)
    return Grouped(ranking=ranking.take(np.array(leaders, np.int64)), others=others)


async def grouped_by(name: str, ranking: Ranking, groups: int, collection: Collection) -> Grouped:
    """Return the best hits of at most so many groups of pictures with the same value of a field, in their order.

    Each picture without the field is a group of its own. Overloaded.
    """
    keys = ranking.keys.tolist()
    stored = await collection.pictures(ranking.keys, thumbnails=False, vectors=False)
    values = {
        key: one.record.metadata[name]
        for key, one in zip(keys, stored, strict=True)
        if one and name in one.record.metadata
    }
    leaders: dict[str | int, int] = {}
    others: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        group = values.get(key, key)
        if group in leaders:
            others.setdefault(keys[leaders[group]], []).append(key)
        elif len(leaders) < groups:
            leaders[group] = place
    return Grouped(
        ranking=ranking.take(np.array([*leaders.values()], np.int64)),
        others={key: np.array(some, np.int64) for key, some in others.items()},
        values=values,
    )
