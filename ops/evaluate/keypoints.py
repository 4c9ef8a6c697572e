"""Searches by keypoints, with the code of a service: by words, merged with the global descriptor, verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.api.request import CANDIDATES
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.index.collection import KEYPOINT_KERNEL
from landseer.ensemble.keypoints.compact import BITS, unpack_keypoints
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.search.expansion.methods import VERIFIED_NEIGHBOURS
from landseer.ensemble.search.expansion.weights import combined
from landseer.ensemble.search.ranking import (
    Ranking,
    expanded_ranking,
    first_ranking,
    fused,
    sorted_by_evidence,
    verified_keys,
    words_ranking,
)
from landseer.ensemble.verify.keypoint_verifier import compared
from landseer.ops.evaluate.keypoint_arrays import KEYPOINTS, OF_QUERY, PATCHES, quantiser, query_of, stored_patches
from landseer.ops.evaluate.ranked import Ranked
from landseer.ops.evaluate.space import FEW, Search, Space
from landseer.ops.evaluate.words import found

Bytes = NDArray[np.uint8]
Before = Callable[[Space], Sequence[Ranked]]
"""Ranks each query of a block by the global descriptor."""


def by_keypoint_words(space: Space) -> Search:
    """Rank by the visual words of keypoints."""
    library = _Library(space)

    def rank(block: Space) -> list[Ranked]:
        places = enumerate(block.own, start=block.first)
        return [found(library.words, library.queries[place].aggregated(), own) for place, own in places]

    return Search(rank=rank, index_bytes=library.word_bytes, block=1)


def by_both(space: Space, before: Before) -> Search:
    """Rank by global descriptor and words, merged by reciprocal rank."""
    library = _Library(space)
    size = space.database.vectors[:1].nbytes + library.word_bytes
    return Search(rank=partial(_merged, library, before), index_bytes=size, block=FEW)


def by_default(space: Space, before: Before) -> Search:
    """Rank as a service does without any option: merge both, verify the first candidates, sort by the log odds."""
    library, patches = _Library(space), _StoredPatches(space)

    def rank(block: Space) -> list[Ranked]:
        rankings = enumerate(_merge(library, before, block), start=block.first)
        return [_ranked(_verified(library, patches, place, ranking)) for place, ranking in rankings]

    size = space.database.vectors[:1].nbytes + library.word_bytes
    return Search(rank=rank, index_bytes=size + library.stored_bytes + patches.stored_bytes, block=FEW)


def by_verified(space: Space, before: Before) -> Search:
    """Rank as a service does with `--expansion verified`: by default, then again by the verified hits."""
    library, patches = _Library(space), _StoredPatches(space)

    def rank(block: Space) -> list[Ranked]:
        merged, words = _merge(library, before, block), _words(library, block)
        first = [_verified(library, patches, place, one) for place, one in enumerate(merged, start=block.first)]
        expanded = np.stack([_expanded(block, place, one) for place, one in enumerate(first)])
        again = before(replace(block, queries=expanded))
        second = (_second(*found) for found in zip(first, again, words, strict=True))
        return [
            _ranked(one if other is None else _verified(library, patches, place, other, expanded=True))
            for place, (one, other) in enumerate(zip(first, second, strict=True), start=block.first)
        ]

    size = space.database.vectors[:1].nbytes + library.word_bytes
    return Search(rank=rank, index_bytes=size + library.stored_bytes + patches.stored_bytes, block=FEW)


def _expanded(block: Space, place: int, ranking: Ranking) -> NDArray[np.float32]:
    """Return query `place` of a block expanded by its verified hits, [D]; as it was without any."""
    found = block.taken(place, verified_keys(ranking, VERIFIED_NEIGHBOURS))
    return combined(block.queries[place], found, np.ones(len(found) + 1))


def _second(first: Ranking, again: Ranked, words: Ranking) -> Ranking | None:
    """Return what is verified after the second search; None if the first has no verified hit."""
    if not len(verified_keys(first, 1)):
        return None
    return fused(expanded_ranking(again.rows, again.scores.astype(np.float32), first), words)


class _Library:
    """The keypoints of the references as a service keeps them, and those of the queries."""

    def __init__(self, space: Space) -> None:
        self.references: list[Bytes] = list(space.arrays.of_references(KEYPOINTS))
        self.queries: list[QueryKeypoints] = [
            query_of(*arrays) for arrays in zip(*(space.arrays.of_queries(name) for name in OF_QUERY), strict=True)
        ]
        words = [unpack_keypoints(one.data).searched() for one in self.references]
        self.words = InvertedFile(words=quantiser().codebook.words, bits=BITS, kernel=KERNELS[KEYPOINT_KERNEL])
        self.words.prepare()
        self.words.add(np.arange(len(words)), words)

    @property
    def word_bytes(self) -> float:
        """Size of the words of a reference in memory, the mean."""
        return self.words.nbytes / max(1, len(self.references))

    @property
    def stored_bytes(self) -> float:
        """Size of the keypoints of a reference, the mean."""
        return _mean_size(self.references)


class _StoredPatches:
    """The patches of queries and references; None for each if the models have none."""

    def __init__(self, space: Space) -> None:
        side = space.arrays
        known = side.has_patches()
        self.references: list[Bytes] = list(side.of_references(PATCHES)) if known else []
        self.queries: list[Bytes] = list(side.of_queries(PATCHES)) if known else []

    def of_query(self, place: int) -> Bytes | None:
        """Return the bytes of a query's patches."""
        return self.queries[place] if self.queries else None

    def of_reference(self, row: int) -> Bytes | None:
        """Return the bytes of a reference's patches."""
        return self.references[row] if self.references else None

    @property
    def stored_bytes(self) -> float:
        """Size of the patches of a reference, the mean."""
        return _mean_size(self.references)


def _mean_size(arrays: Sequence[Bytes]) -> float:
    return sum(one.nbytes for one in arrays) / max(1, len(arrays))


def _merged(library: _Library, before: Before, block: Space) -> list[Ranked]:
    return [_ranked(ranking) for ranking in _merge(library, before, block)]


def _merge(library: _Library, before: Before, block: Space) -> list[Ranking]:
    """Return the merged ranking of each query of a block, without the query itself."""
    merged = []
    for ranked, by_words in zip(before(block), _words(library, block), strict=True):
        merged.append(fused(first_ranking(ranked.rows, ranked.scores.astype(np.float32)), by_words))
    return merged


def _words(library: _Library, block: Space) -> list[Ranking]:
    """Return the ranking by words of each query of a block, without the query itself."""
    found = []
    for place, own in enumerate(block.own, start=block.first):
        keys, scores = library.words.search(library.queries[place].aggregated(), library.words.size)
        found.append(words_ranking(keys, scores.astype(np.float32)).without(own))
    return found


def _verified(
    library: _Library, patches: _StoredPatches, place: int, ranking: Ranking, *, expanded: bool = False
) -> Ranking:
    """Return the ranking of query `place` with its first candidates verified; expanded: near the expanded query."""
    count = min(CANDIDATES, len(ranking.keys))
    query, query_patches = library.queries[place], stored_patches(patches.of_query(place))
    evidence = {
        row: compared(
            query,
            unpack_keypoints(library.references[row].data),
            query_patches,
            stored_patches(patches.of_reference(row)),
        )
        for row in ranking.keys[:count].tolist()
    }
    return sorted_by_evidence(ranking, evidence, count, cosines=ranking.expanded[:count] if expanded else None)


def _ranked(ranking: Ranking) -> Ranked:
    return Ranked(ranking.keys, ranking.scores)
