"""Searches by the words of keypoints, with the code of a service: alone, and merged with the global descriptor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.index.collection import KEYPOINT_KERNEL
from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints, unpack_keypoints
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.search.ranking import Ranking, first_ranking, fused, words_ranking
from landseer.ops.evaluate.keypoint_arrays import KEYPOINTS, OF_QUERY, PATCHES, quantiser, query_of
from landseer.ops.evaluate.ranked import Ranked
from landseer.ops.evaluate.space import FEW, Search, Space
from landseer.ops.evaluate.words import found

Bytes = NDArray[np.uint8]
Before = Callable[[Space], Sequence[Ranked]]
"""Ranks each query of a block by the global descriptor."""


def by_keypoint_words(space: Space) -> Search:
    """Rank by the visual words of keypoints."""
    library = Library(space)

    def rank(block: Space) -> list[Ranked]:
        places = enumerate(block.own, start=block.first)
        return [found(library.words, library.queries[place].aggregated(), own) for place, own in places]

    return Search(rank=rank, index_bytes=library.word_bytes, block=1)


def by_both(space: Space, before: Before) -> Search:
    """Rank by global descriptor and words, merged by reciprocal rank."""
    library = Library(space)
    size = space.database.vectors[:1].nbytes + library.word_bytes
    return Search(rank=partial(_by_both, library, before), index_bytes=size, block=FEW)


class Library:
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

    def keypoints(self, row: int) -> CompactKeypoints:
        """Return those of a reference."""
        return unpack_keypoints(self.references[row].data)

    @property
    def word_bytes(self) -> float:
        """Size of the words of a reference in memory, the mean."""
        return self.words.nbytes / max(1, len(self.references))

    @property
    def stored_bytes(self) -> float:
        """Size of the keypoints of a reference, the mean."""
        return _mean_size(self.references)


class StoredPatches:
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


def _by_both(library: Library, before: Before, block: Space) -> list[Ranked]:
    rankings = (
        fused(first_ranking(ranked.rows, ranked.scores.astype(np.float32)), words)
        for ranked, words in zip(before(block), by_words(library, block), strict=True)
    )
    return [Ranked(one.keys, one.scores) for one in rankings]


def by_words(library: Library, block: Space) -> list[Ranking]:
    """Return the ranking by words of each query of a block, without the query itself."""
    found = []
    for place, own in enumerate(block.own, start=block.first):
        keys, scores = library.words.search(library.queries[place].aggregated(), library.words.size)
        found.append(words_ranking(keys, scores.astype(np.float32)).without(own))
    return found
