"""The default search and its expansion by verified hits, with the code of a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.api.request import CANDIDATES
from landseer.ensemble.evaluation import Ids
from landseer.ensemble.search.expansion.methods import RECOGNISED, WITNESSES, by_verified_hits
from landseer.ensemble.search.ranking import (
    Ranking,
    expanded_ranking,
    first_ranking,
    fused,
    recognised,
    sorted_by_evidence,
    unverified_keys,
    verified,
    with_verified,
)
from landseer.ensemble.verify.evidence import Evidence
from landseer.ensemble.verify.keypoint_verifier import compared
from landseer.ensemble.verify.witness import Witness, surest_via
from landseer.ops.evaluate.keypoint_arrays import stored_patches
from landseer.ops.evaluate.keypoints import Before, Library, StoredPatches, by_words
from landseer.ops.evaluate.ranked import Ranked
from landseer.ops.evaluate.space import FEW, Search, Space

NO_ROWS: Ids = np.empty(0, np.int64)


def by_verified(space: Space, before: Before, *, neighbours: int, nearest: int = 0) -> Search:
    """Rank as a service does: verify, then search again by at most so many verified hits; 0 for once.

    nearest: neighbours by which LAttQE expands the query that these hits are added to; 0 for the query itself.
    """
    verifying = Verifying(space, before)

    def rank(block: Space) -> list[Ranked]:
        asked = verifying.asked(block)
        found = verifying.again(asked, verifying.once(asked), neighbours, nearest=nearest)
        return [Ranked(one.keys, one.scores) for one in found]

    return Search(rank=rank, index_bytes=verifying.index_bytes, block=FEW)


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A block of queries, and what several of its rankings have in common."""

    block: Space
    words: Sequence[Ranking]
    """The rankings by the words of keypoints."""
    known: Sequence[dict[int, Evidence]]
    """Of each query, by row, what was verified; grows."""


class Verifying:
    """Verifies the first candidates of rankings."""

    def __init__(self, space: Space, before: Before) -> None:
        """before: ranks by the global descriptor."""
        self._library, self._patches, self._before = Library(space), StoredPatches(space), before
        searched = space.database.vectors[:1].nbytes + self._library.word_bytes
        self.index_bytes = searched + self._library.stored_bytes + self._patches.stored_bytes
        """Size of the index and of the store for a reference."""

    def rankings(self, block: Space, counts: Sequence[int]) -> dict[int, list[Ranking]]:
        """Return the rankings of the queries of a block for each of these numbers of verified hits; 0 for one search.

        Candidates that several rankings have in common are verified once.
        """
        asked = self.asked(block)
        first = self.once(asked)
        return {count: self.again(asked, first, count) for count in counts}

    def asked(self, block: Space) -> Asked:
        """Return a block with what several of its rankings have in common."""
        return Asked(block=block, words=by_words(self._library, block), known=[{} for _ in block.queries])

    def once(self, asked: Asked, *, expanded: Before | None = None, by_own: bool = False) -> list[Ranking]:
        """Rank the queries of a block by one search, verified.

        expanded: ranks by queries that nearest neighbours expanded, as `--expansion lattqe` does; None without.
        Candidates near the expanded query count as near, as with LAttQE in a service, or with by_own those near the
        query itself, as with any other expansion.
        """
        firsts = [first_ranking(one.rows, one.scores.astype(np.float32)) for one in self._before(asked.block)]
        if expanded is not None:
            pairs = zip(expanded(asked.block), firsts, strict=True)
            firsts = [expanded_ranking(one.rows, one.scores.astype(np.float32), first) for one, first in pairs]
        merged, own = [fused(*one) for one in zip(firsts, asked.words, strict=True)], by_own or expanded is None
        return [
            self._sorted(asked.block.first + place, one, one.global_ if own else one.expanded, known)
            for place, (one, known) in enumerate(zip(merged, asked.known, strict=True))
        ]

    def again(self, asked: Asked, first: Sequence[Ranking], count: int, *, nearest: int = 0) -> list[Ranking]:
        """Rank again by the queries of a block and at most `count` verified hits; 0, or without any, change nothing.

        first: from `once`; nearest: neighbours by which LAttQE expands the query that these hits are added to; 0 for
        the query itself.
        """
        block, sure = asked.block, [verified(one, count) for one in first]
        if not any(sure):
            return list(first)
        near = [one.rows[:nearest] for one in self._before(block)] if nearest else [NO_ROWS] * len(sure)
        queries = [_expanded(block, place, *some) for place, some in enumerate(zip(sure, near, strict=True))]
        again = self._before(replace(block, queries=np.stack(queries)))
        second = [_second(*some) for some in zip(first, again, asked.words, strict=True)]
        return [
            self._again(block.first + place, hits, ranking, asked.known[place]) if hits else first[place]
            for place, (hits, ranking) in enumerate(zip(sure, second, strict=True))
        ]

    def _again(self, place: int, sure: Mapping[int, Evidence], ranking: Ranking, known: dict[int, Evidence]) -> Ranking:
        """Verify the candidates of the second search of query `place`, and recognise others by them."""
        ranking, keypoints = self._sorted(place, ranking, ranking.expanded, known), self._library.keypoints
        witnesses = [Witness.of(row, one, keypoints(row)) for row, one in islice(sure.items(), WITNESSES)]
        rows = unverified_keys(ranking, RECOGNISED).tolist()
        vias = {row: via for row in rows if (via := surest_via(witnesses, keypoints(row)))}
        return recognised(ranking, vias, min(CANDIDATES, len(ranking.keys)))

    def _sorted(
        self, place: int, ranking: Ranking, cosines: NDArray[np.float32], known: dict[int, Evidence]
    ) -> Ranking:
        """Verify and sort the first candidates of query `place`.

        cosines: [n], by which they are near; known: by row, what needs no verifying; grows.
        """
        count = min(CANDIDATES, len(ranking.keys))
        query, patches = self._library.queries[place], stored_patches(self._patches.of_query(place))
        for row in ranking.keys[:count].tolist():
            if row not in known:
                other = stored_patches(self._patches.of_reference(row))
                known[row] = compared(query, self._library.keypoints(row), patches, other)
        return sorted_by_evidence(ranking, known, count, cosines=cosines[:count])


def _expanded(block: Space, place: int, sure: Mapping[int, Evidence], near: Ids) -> NDArray[np.float32]:
    """Return query `place` of a block expanded by its verified hits, [D].

    near: the rows by which LAttQE expands it before; none to add the hits to the query itself.
    """
    query: NDArray[np.float32] = block.queries[place]
    if not sure:
        return query
    learned = block.lattqe(query, block.taken(place, near)) if len(near) else None
    return by_verified_hits(query, block.taken(place, np.array(list(sure), np.int64)), learned=learned)


def _second(first: Ranking, again: Ranked, words: Ranking) -> Ranking:
    """Return the candidates after the second search."""
    return with_verified(fused(expanded_ranking(again.rows, again.scores.astype(np.float32), first), words), first)
