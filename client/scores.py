"""What a hit scored at each stage, in words."""

from __future__ import annotations

from landseer.v1.search_pb2 import Hit

STAGES = {
    "global": "global",
    "words": "words",
    "expanded": "expanded",
    "coattention": "co-attention",
    "inliers": "inliers",
}
"""The fields of StageScores and what people read for them, in the order in which the stages run."""


def score_of(hit: Hit, stage: str, *, digits: int) -> str:
    """Return what a hit scored at a stage as text; empty if that did not score it."""
    if not hit.scores.HasField(stage):
        return ""
    score = getattr(hit.scores, stage)
    return str(score) if isinstance(score, int) else f"{score:.{digits}f}"
