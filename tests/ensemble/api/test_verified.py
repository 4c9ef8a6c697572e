"""Verification in messages, in pixels of the pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from landseer.ensemble.api.verified import MOST_MATCHES, matches, verification
from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.verify.evidence import NAMED_ODDS, NOTHING, Evidence, Via

WHOLE = Region(x=0, y=0, width=1000, height=500)


def evidence(count=3):
    draws = np.random.default_rng(0)
    return Evidence(
        inliers=count,
        log_odds=float(np.log(3)),
        patches=70,
        outline=np.array([[0.25, 0.5], [0.75, 0.5], [1.1, 0.9], [-0.1, 0.9]], np.float32),
        here=draws.random((count, 2)).astype(np.float32),
        there=draws.random((count, 2)).astype(np.float32),
    )


def test_the_outline_is_in_pixels_of_the_hit_and_may_leave_it():
    found = verification(evidence(), 800, 600)
    assert (found.inliers, found.probability, found.patches) == (3, 0.75, 70)
    expected = [(200, 300), (600, 300), (880, 540), (-80, 540)]
    assert [(point.x, point.y) for point in found.outline] == [pytest.approx(one, abs=1e-3) for one in expected]


def test_a_hit_that_was_recognised_says_by_which_other():
    assert not verification(evidence(), 800, 600).HasField("via")
    via = Via(key=7, inliers=44, log_odds=NAMED_ODDS, outline=np.full((4, 2), 0.5, np.float32))
    found = verification(evidence().recognised(via), 800, 600, via="shelf.jpg")
    plain = verification(evidence(), 800, 600)
    assert (found.via.id, found.via.inliers) == ("shelf.jpg", 44)
    assert [(point.x, point.y) for point in found.via.outline] == [(400, 300)] * 4
    found.ClearField("via")
    assert found == plain, "all else is of the query itself"
    unsure = dataclasses.replace(via, log_odds=NAMED_ODDS - 0.1)
    assert not verification(evidence().recognised(unsure), 800, 600).HasField("via"), "less than 0.9"


def test_a_hit_that_was_not_verified_has_no_verification():
    assert verification(None, 800, 600) is None


def test_a_hit_that_shows_nothing_of_it_says_so():
    nothing = Evidence(inliers=0, log_odds=-7.0, outline=NOTHING, here=NOTHING, there=NOTHING)
    found = verification(nothing, 800, 600)
    assert (found.inliers, found.patches, len(found.outline)) == (0, 0, 0) and found.probability < 0.001
    assert list(matches(nothing, WHOLE, 800, 600)) == []


@pytest.mark.parametrize("shown", [WHOLE, Region(x=300, y=100, width=200, height=50)])
def test_matches_are_in_pixels_of_the_whole_query_picture_and_of_the_hit(shown):
    one = evidence()
    found = list(matches(one, shown, 800, 600))
    assert len(found) == 3
    for place, pair in enumerate(found):
        across, down = one.here[place].tolist()
        assert pair.query.x == pytest.approx(shown.x + across * shown.width, rel=1e-5)
        assert pair.query.y == pytest.approx(shown.y + down * shown.height, rel=1e-5)
        x, y = one.there[place].tolist()
        assert (pair.hit.x, pair.hit.y) == pytest.approx((x * 800, y * 600), rel=1e-5)


def test_only_the_best_matches_are_sent():
    one = evidence(MOST_MATCHES + 50)
    found = list(matches(one, WHOLE, 800, 600))
    assert len(found) == MOST_MATCHES
    assert found[0].hit.x == pytest.approx(float(one.there[0, 0]) * 800, rel=1e-5)
