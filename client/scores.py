"""Formats the scores of a hit: by stage, and how sure verification is of it."""

from __future__ import annotations

from landseer.client.readable import plural
from landseer.v1.search_pb2 import Hit, SearchResponse

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


def via_of(hit: Hit) -> str:
    """Return the id of the hit by which this one was recognised; empty for most."""
    return hit.verification.via.id


def copies_of(hit: Hit) -> str:
    """Format how many pictures a hit stands for besides itself; empty if none."""
    others = len(hit.near_identical) + len(hit.grouped)
    return f"+{others:,}" if others else ""


def searched(answer: SearchResponse) -> str:
    """Format how many pictures were searched, and of how many."""
    if not answer.HasField("matched"):
        return plural(answer.index_size, "picture")
    return f"{answer.matched:,} of {plural(answer.index_size, 'picture')}"


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
