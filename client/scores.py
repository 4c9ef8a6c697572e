"""Formats the scores of a hit: by stage, and how sure verification is of it."""

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
SURE = 0.9
"""The probability from which 99 of 100 hits show the same thing, on covers left out when it was learned."""


def score_of(hit: Hit, stage: str, *, digits: int) -> str:
    """Format a hit's score at a stage; empty if that stage did not score it."""
    if not hit.scores.HasField(stage):
        return ""
    score = getattr(hit.scores, stage)
    return str(score) if isinstance(score, int) else f"{score:.{digits}f}"


def patches_of(hit: Hit) -> str:
    """Format how many patches agree; empty if the hit was not verified."""
    return str(hit.verification.patches) if hit.HasField("verification") else ""


def copies_of(hit: Hit) -> str:
    """Format how many near-identical pictures a hit stands for besides itself; empty if none."""
    return f"+{len(hit.near_identical):,}" if hit.near_identical else ""


def is_same(hit: Hit) -> bool:
    """Return whether verification is sure that the hit shows the same thing: its probability is `SURE` or more."""
    return hit.HasField("verification") and hit.verification.probability >= SURE


def sameness(hit: Hit) -> str:
    """Format the probability that a hit shows the same thing: 0% to 99%; empty if the hit was not verified."""
    if not hit.HasField("verification"):
        return ""
    probability = hit.verification.probability
    # Never 100%: a calibrated probability is no certainty. NaN compares false and shows as 0%.
    return f"{min(probability, 0.99) if probability > 0.0 else 0.0:.0%}"
