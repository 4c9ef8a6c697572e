"""Draws in SVG what verification found: where a hit shows the thing, and which points of query and hit match.

The drawings hold numbers only, no text from outside, and need no inline styles, links or scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TypeAlias

from landseer.client.markup import data_url, escaped, percent, ratio
from landseer.client.readable import plural
from landseer.client.scores import is_same
from landseer.v1.search_pb2 import Hit, Point

MOST_LINES = 50
"""How many matches to draw; more lines hide the pictures."""
_GAP = 0.04
"""Space between the two pictures, as a share of their height."""
_HIGHEST_REM = 20
"""Largest height of both pictures, in rem; thumbnails are not much larger."""
_UNIT = 1000
"""Height of both pictures in the units of the drawing."""
_XY: TypeAlias = tuple[float, float]


def outline(hit: Hit) -> str:
    """Return the outline of the thing, to lie over the hit's picture and stretch with it.

    Empty if the hit is not held to show the same thing, or its outline lies outside the picture.
    """
    corners = hit.verification.outline
    if not is_same(hit) or not all(map(_finite, corners)):
        return ""
    kept = clipped([(corner.x, corner.y) for corner in corners], hit.width, hit.height)
    if len(kept) < 3:
        return ""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in kept)
    return (
        f'<svg class="outline" viewBox="0 0 {hit.width} {hit.height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon class="halo" points="{points}"/><polygon points="{points}"/></svg>'
    )


def clipped(corners: Sequence[_XY], width: float, height: float) -> list[_XY]:
    """Return the part of a polygon within [0, width] x [0, height] (Sutherland and Hodgman 1974); empty if none is.

    So an outline that reaches beyond the picture is closed along its edge, where cutting off the strokes would leave
    loose ends, or nothing to see if the whole picture shows the thing.
    """
    kept = list(corners)
    for axis, limit, inward in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept = _cut(kept, axis, limit, inward)
    return kept


def figure(hit: Hit, width: int, height: int) -> str:
    """Return query and hit side by side, with lines between the points that match, folded up.

    `width` and `height` are the query's. Its picture is the background of the class `query-picture`, which the page
    defines once for all hits. Empty if there is no thumbnail, no size or no match.
    """
    matches = [match for match in hit.explanation.matches if _finite(match.query) and _finite(match.hit)]
    if not (matches and hit.explanation.thumbnail and width and height and hit.width and hit.height):
        return ""
    left, right = ratio(width, height), ratio(hit.width, hit.height)
    across = left + _GAP + right
    sides = [
        (_on(match.query, width, height, left), _on(match.hit, hit.width, hit.height, right, left + _GAP))
        for match in matches[:MOST_LINES]
    ]
    drawn = f"the best {MOST_LINES}" if len(matches) > MOST_LINES else "them"
    return (
        f'<details class="matches"><summary>{plural(len(matches), "matching point")}</summary><figure>'
        f'<div class="matched" style="aspect-ratio:{across:.4f};max-width:{across * _HIGHEST_REM:.2f}rem">'
        f'<div class="query-picture" role="img" aria-label="The query picture" style="width:{percent(left / across)}">'
        f'</div><img src="{data_url(hit.explanation.thumbnail)}" alt="The hit, {escaped(hit.id)}" '
        f'style="width:{percent(right / across)}">'
        f'<svg viewBox="0 0 {across * _UNIT:.0f} {_UNIT}" aria-hidden="true">{_lines(sides)}</svg></div>'
        f"<figcaption>The query on the left, the hit on the right; lines join {drawn}.</figcaption></figure></details>"
    )


def _lines(sides: Sequence[tuple[_XY, _XY]]) -> str:
    """Return a line for each pair, coloured in the order of their heights in the query, so that strays stand out."""
    ordered = sorted(sides, key=lambda pair: pair[0][1])
    lines = [f"M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}" for (x, y), (u, v) in ordered]
    ends = "".join(f"M{x:.0f} {y:.0f}h0" for pair in ordered for x, y in pair)
    coloured = (
        f'<path stroke="hsl({300 * place // len(lines)}, 95%, 68%)" d="{line}"/>' for place, line in enumerate(lines)
    )
    return (
        f'<path class="halo" d="{"".join(lines)}"/>{"".join(coloured)}'
        f'<path class="end halo" d="{ends}"/><path class="end" d="{ends}"/>'
    )


def _on(point: Point, width: int, height: int, wide: float, start: float = 0.0) -> _XY:
    """Return a point of a picture in units of the drawing, for a picture drawn `wide` heights wide from `start`."""
    across, down = (min(max(share, 0.0), 1.0) for share in (point.x / width, point.y / height))
    return (start + across * wide) * _UNIT, down * _UNIT


def _cut(corners: Sequence[_XY], axis: int, limit: float, inward: int) -> list[_XY]:
    """Return the part of a polygon on one side of a line; `inward` is the sign of the side to keep."""
    kept: list[_XY] = []
    for start, end in zip([*corners[-1:], *corners[:-1]], corners, strict=True):
        before, after = inward * (start[axis] - limit), inward * (end[axis] - limit)
        if before * after < 0:
            share = before / (before - after)
            kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
        if after >= 0:
            kept.append(end)
    return kept


def _finite(point: Point) -> bool:
    return isfinite(point.x) and isfinite(point.y)
