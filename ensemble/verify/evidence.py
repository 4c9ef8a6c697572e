"""What spatial verification found in a candidate: inliers, where the thing is, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.affine import FEWEST
from landseer.ensemble.verify.fast_spatial import Fit, box_of

Points = NDArray[np.float32]

OFFSET, INLIERS, POSSIBLE, FEW = 5.78, 5.00, -6.02, 5
"""Log odds of the same thing = OFFSET + INLIERS sqrt(inliers) + POSSIBLE log(most + FEW), by logistic regression.

The same number of inliers says less where many keypoints match, as with two texts in one font. Learned on what searches
with photographs of 50 covers found among other pictures; docs/research/keypoints.md says how.
"""
NO_EVIDENCE = -7.5
"""Log odds of a candidate without inliers, and the least of any other."""
PATCH = 3.0
"""Log odds of a patch's inliers, for the root of their number; learned with the constants of `search.prior`.

Any three determine a map, so they say nothing, and only what the root exceeds that of three counts.
"""
LIFTED = math.log(99.0)
"""Log odds, a probability of 0.99, up to which patches lift a hit.

They tell what looks alike, not what is the same: between two that keypoints are sure of they must not decide.
"""
NAMED_ODDS = math.log(9.0)
"""Log odds, a probability of 0.9, from which an answer names the hit by which a candidate was recognised."""
CLEAR, CLEAR_PATCHES = 8, 15
"""Inliers from which a map of keypoints, otherwise one of patches, shows where the thing is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The local features of one kind of two pictures, and the map that they agree on."""

    query: CompactKeypoints | Patches
    candidate: CompactKeypoints | Patches
    fit: Fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Via:
    """A verified hit by which a candidate was recognised: the query matches it, and it matches the candidate."""

    key: int
    """Of the hit."""
    inliers: int
    """Among keypoints of the hit, where it shows what the query shows, and the candidate's; 0 if there is no map."""
    log_odds: float
    """Natural logarithm of the odds that both show the same thing as the query."""
    outline: Points
    """[4, 2], the box around what agrees, from the query by way of the hit; [0, 2] without a map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The evidence that a candidate shows what the query shows. Points are shares of width and height."""

    inliers: int
    """Among keypoints; 0 if there is no map."""
    log_odds: float
    """Natural logarithm of the odds that it is the same thing, by keypoints alone."""
    patches: int = 0
    """Inliers among patches; 0 if there is no map, or a picture has none."""
    outline: Points
    """[4, 2], the box around the query's inliers, mapped into the candidate; [0, 2] without a map to show."""
    here: Points
    """[n, 2], the inliers in the query, fewest differing bits first: of the map that the outline shows."""
    there: Points
    """[n, 2], in the candidate."""
    via: Via | None = None
    """How it was recognised by way of another hit, if that is surer than the query's own keypoints."""

    def recognised(self, via: Via) -> Evidence:
        """Return the evidence with the way over another hit if that is surer, otherwise this."""
        return replace(self, via=via) if via.log_odds > self.log_odds else self

    @property
    def named_via(self) -> Via | None:
        """The way over another hit, if it is sure enough to be named. The score counts it in any case."""
        return self.via if self.via is not None and self.via.log_odds >= NAMED_ODDS else None

    @property
    def probability(self) -> float:
        """Probability that it is the same thing by the query's keypoints alone, 0 to 1.

        What patches add was not calibrated, nor was the way over another hit.
        """
        return 1.0 / (1.0 + math.exp(-self.log_odds))

    @property
    def score(self) -> float:
        """What candidates are sorted by: the log odds of the surer way, and what patches add where it is not sure."""
        surest = self.log_odds if self.via is None else self.via.log_odds
        lift = PATCH * max(0.0, math.sqrt(self.patches) - math.sqrt(FEWEST))
        return max(surest, min(surest + lift, LIFTED))


NOTHING = np.empty((0, 2), np.float32)


def evidence_of(keypoints: Comparison, patches: Comparison | None = None) -> Evidence:
    """Return the evidence of two pictures, by their keypoints and, if both have some, by their patches."""
    outline, here, there = _drawn(_shown(keypoints, patches))
    return Evidence(
        inliers=keypoints.fit.inliers,
        log_odds=log_odds(keypoints.fit.inliers, keypoints.fit.most),
        patches=0 if patches is None else patches.fit.inliers,
        outline=outline,
        here=here,
        there=there,
    )


def _shown(keypoints: Comparison, patches: Comparison | None) -> Comparison:
    """Return whose map shows where the thing is. That of keypoints is more exact."""
    if keypoints.fit.inliers < CLEAR and patches is not None and patches.fit.inliers >= CLEAR_PATCHES:
        return patches
    return keypoints


def _drawn(one: Comparison) -> tuple[Points, Points, Points]:
    """Return the outline [4, 2], and the inliers in query and candidate, [n, 2] each, as shares; [0, 2] without map."""
    map = one.fit.map
    if map is None:
        return NOTHING, NOTHING, NOTHING
    matches = one.fit.matches.take(np.argsort(one.fit.matches.distances, kind="stable"))
    here, there = one.query.positions[matches.query], one.candidate.positions[matches.candidate]
    outline = shares(mapped(map, box_of(here.astype(np.float64))), one.candidate.frame)
    return outline, shares(here, one.query.frame), shares(there, one.candidate.frame)


def log_odds(inliers: int, most: int) -> float:
    """Return the log odds that a candidate with so many inliers, of so many possible ones, shows the same thing."""
    if not inliers:
        return NO_EVIDENCE
    return max(NO_EVIDENCE, OFFSET + INLIERS * math.sqrt(inliers) + POSSIBLE * math.log(most + FEW))


def mapped(map: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where a homography [3, 3] maps points, [n, 2]."""
    found = points @ map[:, :2].T + map[:, 2]
    return np.asarray(found[:, :2] / found[:, 2:])


def shares(points: NDArray[np.floating[Any]], frame: tuple[int, int]) -> Points:
    """Return points [n, 2] in pixels of the model's input as shares of its width and height."""
    return np.asarray((points + 0.5) / np.array(frame), np.float32)
