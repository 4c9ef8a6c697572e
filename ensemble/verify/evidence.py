"""What spatial verification found in a candidate: inliers, where the thing is, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.verify.fast_spatial import Fit, box_of

Points = NDArray[np.float32]

OFFSET, INLIERS, POSSIBLE, FEW = 5.78, 5.00, -6.02, 5
"""Log odds of the same thing = OFFSET + INLIERS sqrt(inliers) + POSSIBLE log(most + FEW), by logistic regression.

The same number of inliers says less where many keypoints match, as with two texts in one font. Learned on what searches
with photographs of 50 covers found among other pictures; docs/research/keypoints.md says how.
"""
NO_EVIDENCE = -7.5
"""Log odds of a candidate without inliers, and the least of any other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The evidence that a candidate shows what the query shows. Points are shares of width and height."""

    inliers: int
    """0 if there is no map."""
    log_odds: float
    """Natural logarithm of the odds that it is the same thing."""
    outline: Points
    """[4, 2], the box around the query's inliers, mapped into the candidate; [0, 2] without inliers."""
    here: Points
    """[n, 2], the inliers in the query, fewest differing bits first."""
    there: Points
    """[n, 2], in the candidate."""

    @property
    def probability(self) -> float:
        """Probability that it is the same thing, 0 to 1."""
        return 1.0 / (1.0 + math.exp(-self.log_odds))


NOTHING = np.empty((0, 2), np.float32)


def evidence_of(query: CompactKeypoints, candidate: CompactKeypoints, found: Fit) -> Evidence:
    """Return the evidence of a fit."""
    if found.map is None:
        return Evidence(inliers=0, log_odds=NO_EVIDENCE, outline=NOTHING, here=NOTHING, there=NOTHING)
    matches = found.matches.take(np.argsort(found.matches.distances, kind="stable"))
    here, there = query.positions[matches.query], candidate.positions[matches.candidate]
    corners = box_of(here.astype(np.float64))
    mapped = corners @ found.map[:, :2].T + found.map[:, 2]
    return Evidence(
        inliers=found.inliers,
        log_odds=log_odds(found.inliers, found.most),
        outline=_shares(mapped[:, :2] / mapped[:, 2:], candidate.frame),
        here=_shares(here, query.frame),
        there=_shares(there, candidate.frame),
    )


def log_odds(inliers: int, most: int) -> float:
    """Return the log odds that a candidate with so many inliers, of so many possible ones, shows the same thing."""
    if not inliers:
        return NO_EVIDENCE
    return max(NO_EVIDENCE, OFFSET + INLIERS * math.sqrt(inliers) + POSSIBLE * math.log(most + FEW))


def _shares(points: NDArray[np.floating[Any]], frame: tuple[int, int]) -> Points:
    """Return points [n, 2] in pixels of the model's input as shares of its width and height."""
    return np.asarray((points + 0.5) / np.array(frame), np.float32)
