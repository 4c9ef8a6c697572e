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

LEAST = 8
"""Fewer inliers count as none: so many agree by chance."""
OFFSET, SLOPE, TRIED = -15.0, 7.0, -1.0
"""The calibration: log odds of the same thing = OFFSET + SLOPE log(inliers) + TRIED log(matches)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The evidence that a candidate shows what the query shows. Points are shares of width and height."""

    inliers: int
    """0 if fewer than `LEAST`."""
    probability: float
    """Of the same thing, 0 to 1."""
    outline: Points
    """[4, 2], the box around the query's inliers, mapped into the candidate; [0, 2] without inliers."""
    here: Points
    """[n, 2], the inliers in the query, fewest differing bits first."""
    there: Points
    """[n, 2], in the candidate."""


NOTHING = np.empty((0, 2), np.float32)


def evidence_of(query: CompactKeypoints, candidate: CompactKeypoints, found: Fit) -> Evidence:
    """Return the evidence of a fit."""
    if found.map is None or found.inliers < LEAST:
        return Evidence(inliers=0, probability=0.0, outline=NOTHING, here=NOTHING, there=NOTHING)
    matches = found.matches.take(np.argsort(found.matches.distances, kind="stable"))
    here, there = query.positions[matches.query], candidate.positions[matches.candidate]
    corners = box_of(here.astype(np.float64))
    mapped = corners @ found.map[:, :2].T + found.map[:, 2]
    return Evidence(
        inliers=found.inliers,
        probability=probability(found.inliers, found.tried),
        outline=_shares(mapped[:, :2] / mapped[:, 2:], candidate.frame),
        here=_shares(here, query.frame),
        there=_shares(there, candidate.frame),
    )


def probability(inliers: int, tried: int) -> float:
    """Return the probability that a candidate with so many inliers of so many matches shows the same thing."""
    odds = OFFSET + SLOPE * math.log(max(inliers, 1)) + TRIED * math.log(max(tried, 1))
    return 1.0 / (1.0 + math.exp(-min(max(odds, -50.0), 50.0)))


def _shares(points: NDArray[np.floating[Any]], frame: tuple[int, int]) -> Points:
    """Return points [n, 2] in pixels of the model's input as shares of its width and height."""
    return np.asarray((points + 0.5) / np.array(frame), np.float32)
