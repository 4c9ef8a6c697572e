"""Conversion of spatial verification to protobuf messages, in pixels of the pictures."""

from __future__ import annotations

from collections.abc import Iterator

from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.verify.evidence import Evidence, Points, Via
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
    found = evidence.named_via
    return search_pb2.Verification(
        inliers=evidence.inliers,
        probability=evidence.probability,
        outline=_points(evidence.outline, width, height),
        patches=evidence.patches,
        via=None if found is None else _via(found, via, width, height),
    )


def matches(evidence: Evidence, shown: Region, width: int, height: int) -> Iterator[search_pb2.PointMatch]:
    """Yield the matched points, best first. shown: the part of the query picture that was searched for."""
    pairs = zip(evidence.here.tolist(), evidence.there.tolist(), strict=True)
    for (x, y), (across, down) in list(pairs)[:MOST_MATCHES]:
        yield search_pb2.PointMatch(
            query=search_pb2.Point(x=shown.x + x * shown.width, y=shown.y + y * shown.height),
            hit=search_pb2.Point(x=across * width, y=down * height),
        )


def _via(found: Via, id: str, width: int, height: int) -> search_pb2.Via:
    return search_pb2.Via(id=id, inliers=found.inliers, outline=_points(found.outline, width, height))


def _points(shares: Points, width: int, height: int) -> list[search_pb2.Point]:
    return [search_pb2.Point(x=x * width, y=y * height) for x, y in shares.tolist()]
