"""Which arrays of the pictures a method needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from landseer.ensemble.search.expansion.methods import VERIFIED
from landseer.ops.evaluate.arrays import BOXES, CLUSTERS, FEATURES, LOCALS, POSITIONS, QUERY_VECTOR
from landseer.ops.evaluate.keypoint_arrays import KEYPOINTS, PATCHES
from landseer.ops.evaluate.methods import BOTH, DEFAULT, KEYPOINT_WORDS, ONCE, Method
from landseer.ops.evaluate.reranking import COATTENTION, NAIVE, SPATIAL
from landseer.ops.evaluate.words import ASMK, IN_FULL, POOLED, RASMK, WORDS

NEEDS: Mapping[str, frozenset[str]] = {
    COATTENTION: frozenset({QUERY_VECTOR, CLUSTERS}),
    NAIVE: frozenset({QUERY_VECTOR, FEATURES}),
    SPATIAL: frozenset({LOCALS, POSITIONS}),
    ASMK: frozenset({LOCALS}),
    RASMK: frozenset({LOCALS, BOXES}),
    WORDS: frozenset({LOCALS}),
    **{name: frozenset({LOCALS, BOXES} if form.regional else {LOCALS}) for name, form in IN_FULL.items()},
    **dict.fromkeys(POOLED, frozenset({LOCALS, BOXES})),
    KEYPOINT_WORDS: frozenset({KEYPOINTS}),
    BOTH: frozenset({KEYPOINTS}),
    **dict.fromkeys((DEFAULT, ONCE, VERIFIED), frozenset({KEYPOINTS, PATCHES})),
}
"""By the name of a ranker or a re-ranker; those not listed need only descriptors."""


WORDY = frozenset({ASMK, RASMK, WORDS, *IN_FULL, *POOLED})
"""Rankers that need a codebook."""


def needed(methods: Iterable[Method]) -> frozenset[str]:
    """Return the names of the arrays (see `arrays.py`) that the methods need besides descriptors."""
    chosen = list(methods)
    parts = {method.name for method in chosen} | {method.reranking.name for method in chosen if method.reranking}
    return frozenset[str]().union(*(NEEDS[part] for part in parts if part in NEEDS))
