"""Matches between the local features of a query and those of a candidate.

Keypoints match if they share a word, and few bits differ. Each keypoint of the query has several words, nearest first
(multiple assignment, Jegou et al. 2010); a candidate's has one. The threshold of the Hamming distance rejects what
merely falls into the same word (Jegou et al. 2008).

Patches have no words: they match if each is the other's nearest, and few bits differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.verify.nearest import nearest
from landseer.ensemble.verify.shared_words import compare

FARTHEST = 44
"""Most differing bits of a match, of 128."""

FARTHEST_PATCH = 38
"""The same, of patches."""

Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Candidate matches of two pictures; a keypoint may be in several, a patch is in one."""

    query: Places
    """[m], rows of the query's keypoints or patches."""
    candidate: Places
    """[m], rows of the candidate's."""
    distances: Places
    """[m], differing bits."""

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def of(cls, rows: Places) -> Matches:
        """Return those of query, candidate and differing bits, [3, m]."""
        return cls(query=rows[0], candidate=rows[1], distances=rows[2])

    @property
    def rows(self) -> tuple[Places, Places, Places]:
        """Query, candidate and distances, for the loops."""
        return self.query, self.candidate, self.distances

    def take(self, places: Places | NDArray[np.bool_] | slice) -> Matches:
        """Return some of the matches, in that order."""
        return Matches(query=self.query[places], candidate=self.candidate[places], distances=self.distances[places])


def matches_of(query: QueryKeypoints, candidate: CompactKeypoints, *, farthest: int = FARTHEST) -> Matches:
    """Return the matches of a query with a candidate, in the order of the candidate's keypoints."""
    table = query.table
    by_word = table.places, table.begins, table.rows, table.codes
    return Matches.of(compare()(by_word, candidate.words, candidate.codes.view(np.uint64), farthest))


def mutual_matches(query: Patches, candidate: Patches, *, farthest: int = FARTHEST_PATCH) -> Matches:
    """Return the matches of two pictures' patches, each the other's nearest, in the order of the query's patches.

    Ties go to the stronger patch.
    """
    return Matches.of(nearest()(query.codes.view(np.uint64), candidate.codes.view(np.uint64), farthest))
