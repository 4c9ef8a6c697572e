from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.match_drawing import MOST_LINES, clipped, figure, outline
from landseer.v1.search_pb2 import Hit, Point, PointMatch

SIDE = st.floats(-300, 500)
SQUARE = [(10.0, 20.0), (60.0, 20.0), (60.0, 80.0), (10.0, 80.0)]


def hit(corners=SQUARE, probability: float = 0.95, matches=(), **changes) -> Hit:
    made = Hit(**({"id": "a", "width": 200, "height": 100} | changes))
    made.explanation.thumbnail = b"\xff\xd8\xff"
    made.verification.probability = probability
    made.verification.outline.extend(Point(x=x, y=y) for x, y in corners)
    for (x, y), (u, v) in matches:
        made.explanation.matches.append(PointMatch(query=Point(x=x, y=y), hit=Point(x=u, y=v)))
    return made


def area(corners: list[tuple[float, float]]) -> float:
    """Signed area by the shoelace formula."""
    pairs = zip(corners, [*corners[1:], *corners[:1]], strict=True)
    return sum(x * v - u * y for (x, y), (u, v) in pairs) / 2


def test_an_outline_is_drawn_in_pixels_of_the_hit() -> None:
    drawn = outline(hit())
    assert 'viewBox="0 0 200 100"' in drawn
    assert drawn.count('points="10.0,20.0 60.0,20.0 60.0,80.0 10.0,80.0"') == 2


@pytest.mark.parametrize(
    "bare",
    [
        Hit(width=200, height=100),
        hit(probability=0.89),
        hit(corners=[]),
        hit(corners=[(x + 500, y) for x, y in SQUARE]),
        hit(corners=[*SQUARE[:3], (math.nan, 80)]),
        hit(corners=[*SQUARE[:3], (math.inf, 80)]),
        hit(width=0, height=0),
    ],
    ids=["not verified", "improbable", "no map", "outside", "not a number", "infinite", "no size"],
)
def test_where_nothing_is_outlined(bare: Hit) -> None:
    assert outline(bare) == ""


def test_an_outline_that_reaches_beyond_the_picture_is_closed_along_its_edge() -> None:
    around = [(-50, -50), (300, -50), (300, 300), (-50, 300)]
    assert sorted(clipped(around, 200, 100)) == [(0, 0), (0, 100), (200, 0), (200, 100)]
    assert clipped([(150, 50), (250, 50), (150, 80)], 200, 100) == [(150, 50), (200, 50), (200, 65), (150, 80)]


@given(st.lists(st.tuples(SIDE, SIDE), min_size=4, max_size=4))
def test_clipping_keeps_what_lies_inside(corners: list[tuple[float, float]]) -> None:
    kept = clipped(corners, 200, 100)
    assert all(-1e-6 <= x <= 200 + 1e-6 and -1e-6 <= y <= 100 + 1e-6 for x, y in kept)
    inside = [(abs(x) / 3, abs(y) / 6) for x, y in corners]
    assert clipped(inside, 200, 100) == inside


@given(SIDE, SIDE, SIDE, SIDE)
def test_the_area_of_a_clipped_rectangle_is_that_of_the_intersection(x: float, y: float, u: float, v: float) -> None:
    kept = clipped([(x, y), (u, y), (u, v), (x, v)], 200, 100)
    wide = max(min(max(x, u), 200) - max(min(x, u), 0), 0)
    high = max(min(max(y, v), 100) - max(min(y, v), 0), 0)
    assert abs(area(kept)) == pytest.approx(wide * high, abs=1e-6)


def test_lines_join_the_matching_points_of_both_pictures() -> None:
    matches = [((0, 0), (200, 100)), ((100, 50), (100, 50))]
    drawn = figure(hit(matches=matches), 200, 100)
    assert "2 matching points" in drawn and 'viewBox="0 0 4040 1000"' in drawn
    assert 'd="M0 0L4040 1000"' in drawn and 'd="M1000 500L3040 500"' in drawn
    assert "lines join them" in drawn


def test_pictures_keep_their_shapes_and_stray_points_stay_on_their_picture() -> None:
    drawn = figure(hit(matches=[((-9, 50), (20, 900))]), 50, 100)
    assert 'viewBox="0 0 2540 1000"' in drawn
    assert 'd="M0 500L740 1000"' in drawn
    assert 'style="width:19.69%"' in drawn and 'style="width:78.74%"' in drawn


def test_only_the_best_matches_are_drawn() -> None:
    drawn = figure(hit(matches=[((place, place), (place, 9)) for place in range(70)]), 200, 100)
    assert "70 matching points" in drawn and "lines join the best 50" in drawn
    assert len(re.findall("<path stroke=", drawn)) == MOST_LINES
    assert 'd="M500 500' not in drawn


@pytest.mark.parametrize(
    "bare",
    [
        hit(),
        hit(matches=[((math.nan, 1), (1, 1)), ((1, 1), (1, math.inf))]),
        hit(matches=[((1, 1), (1, 1))], width=0),
        Hit(width=9, height=9, explanation={"matches": [PointMatch()]}),
    ],
    ids=["no matches", "not finite", "no size", "no thumbnail"],
)
def test_where_there_is_no_figure(bare: Hit) -> None:
    assert figure(bare, 200, 100) == ""


def test_an_id_is_text() -> None:
    assert "<b>" not in figure(hit(id='"<b>', matches=[((1, 1), (1, 1))]), 200, 100)
