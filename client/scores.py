"""Formats the scores of a hit by stage."""

from __future__ import annotations

from landseer.v1.search_pb2 import Hit

STAGES = {
    "global": "global",
    "words": "words",
    "expanded": "expanded",
    "coattention": "co-attention",
    "inliers": "inliers",
}
"""The fields of StageScores and their labels, in the order the stages run."""


def score_of(hit: Hit, stage: str, *, digits: int) -> str:
    """Format a hit's score at a stage; empty if that stage did not score it."""
    if not hit.scores.HasField(stage):
        return ""
    score = getattr(hit.scores, stage)
    return str(score) if isinstance(score, int) else f"{score:.{digits}f}"
