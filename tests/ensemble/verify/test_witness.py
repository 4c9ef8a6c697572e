"""Hits by which others are recognised: what counts, how sure that is, and where the thing then lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prints import SIZE, apply, camera, cover, photographed

from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.verify.evidence import LIFTED, NOTHING, Evidence
from landseer.ensemble.verify.keypoint_verifier import compared
from landseer.ensemble.verify.witness import Witness, both, surest_via, within

SEEN = camera(turn=25, tilt=0.2, zoom=0.8)
SHELF = np.concatenate([cover(1), cover(2)], axis=1)
"""Two covers side by side."""


@pytest.fixture(scope="module")
def quantiser():
    return Quantiser(shipped_codebook())


@pytest.fixture(scope="module")
def compact(quantiser):
    return lambda pixels: quantiser.compact(extract(pixels), frame_of(pixels))


@pytest.fixture(scope="module")
def shelf(quantiser, compact):
    """The shelf as a witness for the cover on its left."""
    query, there = quantiser.query(extract(cover(1)), SIZE), compact(SHELF)
    return Witness.of(7, compared(query, there, None, None), there)


def test_another_photograph_of_the_thing_is_recognised_and_outlined(shelf, compact):
    via = shelf.via(compact(photographed(cover(1), SEEN)))
    assert via.key == 7 and via.inliers > 30
    assert 0.99 < 1 / (1 + math.exp(-via.log_odds)) <= shelf.evidence.probability
    # In the query, which is the cover, the outline is a box, and all that agrees is in it.
    (left, top), (right, _), _, (_, bottom) = box = apply(np.linalg.inv(SEEN), via.outline * SIZE)
    np.testing.assert_allclose(box, [[left, top], [right, top], [right, bottom], [left, bottom]], atol=3)
    assert -5 < left < 40 and -5 < top < 60 and 300 < right < 405 and 250 < bottom < 305


def test_what_stands_beside_the_thing_is_not_recognised(shelf, compact):
    beside = compact(photographed(cover(2), SEEN))
    assert shelf.via(beside).log_odds < 0
    # Without the outline it would be.
    whole = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    evidence = Evidence(inliers=90, log_odds=9.0, outline=whole, here=whole, there=whole)
    assert Witness.of(7, evidence, compact(SHELF)).via(beside).log_odds > 4.6


def test_the_surest_way_counts_and_only_if_it_is_surer(shelf, compact):
    candidate = compact(photographed(cover(1), SEEN))
    wrong = Witness(key=8, evidence=shelf.evidence, keypoints=shelf.keypoints)
    assert surest_via([], candidate) is None
    via = surest_via([wrong, shelf], candidate)
    assert via.key == 8, "of equally sure ones the first"
    direct = Evidence(inliers=4, log_odds=-2.0, patches=9, outline=NOTHING, here=NOTHING, there=NOTHING)
    after = direct.recognised(via)
    assert (after.inliers, after.probability, after.via) == (4, direct.probability, via), "the query agrees no more"
    assert after.score == via.log_odds > LIFTED, "patches add nothing to what is sure"
    sure = Evidence(inliers=90, log_odds=99.0, outline=NOTHING, here=NOTHING, there=NOTHING)
    assert sure.recognised(via) is sure


def test_a_picture_without_keypoints_is_not_recognised(shelf, compact):
    via = shelf.via(compact(np.full((300, 400, 3), 90, np.uint8)))
    assert via.inliers == 0 and via.log_odds < -7 and len(via.outline) == 0


@pytest.mark.parametrize(("first", "second"), [(0.99, 0.9), (0.5, 0.5), (1e-4, 0.999), (0.999, 1e-3)])
def test_both_is_the_product_of_the_probabilities(first, second):
    odds = both(math.log(first / (1 - first)), math.log(second / (1 - second)))
    assert 1 / (1 + math.exp(-odds)) == pytest.approx(first * second, rel=1e-9)
    assert math.isfinite(both(800.0, -800.0)) and both(800.0, 900.0) <= 800.0


def test_within_a_quadrilateral_however_it_is_turned():
    corners = np.array([[0.1, 0.2], [0.8, 0.1], [0.9, 0.7], [0.2, 0.9]], np.float32)
    points = np.array([[0.5, 0.5], [0.05, 0.5], [0.85, 0.15], [0.88, 0.68]], np.float32)
    for turned in (corners, corners[::-1], np.roll(corners, 1, axis=0)):
        assert within(turned, points).tolist() == [True, False, False, True]
