"""Conversion of spatial verification to protobuf messages, in pixels of the pictures."""

from __future__ import annotations

from collections.abc import Iterator

from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.verify.evidence import Evidence
from landseer.v1 import search_pb2

MOST_MATCHES = 500
"""Matched points of a hit that are sent."""


def verification(
    evidence: Evidence | None, width: int, height: int, *, via: str = ""
) -> search_pb2.Verification | None:
    """Return what was found in a hit of that size, pixels; None if it was not verified.

    via: the id of the hit by which it was recognised, if it was.
    """
    if evidence is None:
        return None
    outline = [search_pb2.Point(x=x * width, y=y * height) for x, y in evidence.outline.tolist()]
    return search_pb2.Verification(
        inliers=evidence.inliers,
        probability=evidence.probability,
        outline=outline,
        patches=evidence.patches,
        via=None if evidence.via is None else search_pb2.Via(id=via, inliers=evidence.via.inliers),
    )


def matches(evidence: Evidence, shown: Region, width: int, height: int) -> Iterator[search_pb2.PointMatch]:
    """Yield the matched points, best first. shown: the part of the query picture that was searched for."""
    pairs = zip(evidence.here.tolist(), evidence.there.tolist(), strict=True)
    for (x, y), (across, down) in list(pairs)[:MOST_MATCHES]:
        yield search_pb2.PointMatch(
            query=search_pb2.Point(x=shown.x + x * shown.width, y=shown.y + y * shown.height),
            hit=search_pb2.Point(x=across * width, y=down * height),
        )
