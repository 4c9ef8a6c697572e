"""What verification found, as shares of the pictures, and how sure it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.evidence import (
    CLEAR,
    CLEAR_PATCHES,
    LIFTED,
    NO_EVIDENCE,
    PATCH,
    Comparison,
    evidence_of,
    log_odds,
)
from landseer.ensemble.verify.fast_spatial import Fit
from landseer.ensemble.verify.matching import Matches

COUNTS = st.integers(0, 2000)


def keypoints(positions, frame):
    count = len(positions)
    return CompactKeypoints(
        words=np.zeros(count, np.int64),
        codes=np.zeros((count, 16), np.uint8),
        positions=np.asarray(positions, np.float32),
        sizes=np.ones(count, np.float32),
        angles=np.zeros(count, np.float32),
        frame=frame,
    )


def found(count, *, map=None, most=30):
    """Compare a query with a candidate twice as large and 10 pixels to the right."""
    draws = np.random.default_rng(0)
    here = draws.uniform(10, 90, (20, 2))
    map = np.array([[2.0, 0, 10], [0, 2, 0], [0, 0, 1]]) if map is None else map
    there = here * 2 + (10, 0)
    rows = draws.permutation(20)[:count]
    matches = Matches(query=rows, candidate=rows, distances=draws.integers(0, 40, count))
    return Comparison(
        query=keypoints(here, (100, 200)),
        candidate=keypoints(there, (400, 250)),
        fit=Fit(matches=matches, map=map, most=most),
    )


def without_map():
    one = found(0)
    return dataclasses.replace(one, fit=dataclasses.replace(one.fit, map=None))


def agreeing(count, side):
    """Compare patches of two equal pictures of this side, of which so many agree."""
    places = np.random.default_rng(1).uniform(0, side - 1, (count, 2)).astype(np.float32)
    some = Patches(
        codes=np.zeros((count, 16), np.uint8), positions=places, sizes=np.ones(count, np.float32), frame=(side, side)
    )
    rows = np.arange(count)
    matches = Matches(query=rows, candidate=rows, distances=rows)
    return Comparison(query=some, candidate=some, fit=Fit(matches=matches, map=np.eye(3), most=count))


def test_the_box_around_the_inliers_is_outlined_in_the_candidate():
    one = found(12)
    evidence = evidence_of(one)
    inside = one.query.positions[one.fit.matches.query]
    (left, top), (right, bottom) = inside.min(axis=0) * 2 + (10, 0), inside.max(axis=0) * 2 + (10, 0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    np.testing.assert_allclose(evidence.outline, (corners + 0.5) / (400, 250), atol=1e-5)
    assert evidence.inliers == 12 and evidence.log_odds == log_odds(12, 30)
    assert evidence.probability == pytest.approx(1 / (1 + np.exp(-log_odds(12, 30))))


def test_matched_points_are_shares_and_the_surest_come_first():
    one = found(15)
    evidence = evidence_of(one)
    order = np.argsort(one.fit.matches.distances, kind="stable")
    here = one.query.positions[one.fit.matches.query[order]]
    np.testing.assert_allclose(evidence.here, (here + 0.5) / (100, 200), atol=1e-6)
    np.testing.assert_allclose(evidence.there, (here * 2 + (10, 0) + 0.5) / (400, 250), atol=1e-6)
    assert evidence.here.dtype == evidence.there.dtype == evidence.outline.dtype == np.float32


def test_a_perspective_map_is_divided_through():
    map = np.array([[2.0, 0, 10], [0, 2, 0], [0.004, 0, 1]])
    one = found(12, map=map)
    evidence = evidence_of(one)
    inside = one.query.positions[one.fit.matches.query].astype(float)
    left, top = inside.min(axis=0)
    wanted = np.array([2 * left + 10, 2 * top]) / (0.004 * left + 1)
    np.testing.assert_allclose(evidence.outline[0], (wanted + 0.5) / (400, 250), atol=1e-5)


def test_without_a_map_nothing_was_found():
    evidence = evidence_of(without_map())
    assert (evidence.inliers, evidence.log_odds, evidence.patches) == (0, NO_EVIDENCE, 0)
    assert evidence.score == NO_EVIDENCE and evidence.probability < 0.01
    assert evidence.outline.shape == evidence.here.shape == evidence.there.shape == (0, 2)


def test_patches_raise_the_score_and_leave_the_probability_of_keypoints():
    for one in (found(5), without_map()):
        alone, both = evidence_of(one), evidence_of(one, agreeing(16, 64))
        assert (alone.patches, both.patches) == (0, 16)
        assert both.score == pytest.approx(alone.score + (4 - 3**0.5) * PATCH) and alone.score == alone.log_odds
        assert (both.inliers, both.probability) == (alone.inliers, alone.probability)


def test_three_patches_which_any_map_fits_say_nothing():
    alone, few, more = (evidence_of(without_map(), patches) for patches in (None, agreeing(3, 64), agreeing(4, 64)))
    assert few.patches == 3 and few.score == alone.score < more.score


def test_patches_lift_a_hit_no_further_than_to_where_keypoints_are_sure():
    assert evidence_of(without_map(), agreeing(60, 64)).score == LIFTED
    sure = evidence_of(found(20, most=20), agreeing(60, 64))
    assert sure.score == sure.log_odds > LIFTED


@pytest.mark.parametrize(
    ("inliers", "patches", "of_patches"),
    [
        (CLEAR, 100, False),
        (CLEAR - 1, CLEAR_PATCHES, True),
        (CLEAR - 1, CLEAR_PATCHES - 1, False),
        (0, CLEAR_PATCHES, True),
    ],
)
def test_the_outline_is_that_of_the_clearer_map(inliers, patches, of_patches):
    by_keypoints, by_patches = found(inliers) if inliers else without_map(), agreeing(patches, 64)
    evidence = evidence_of(by_keypoints, by_patches)
    expected = evidence_of(by_patches if of_patches else by_keypoints)
    assert evidence.outline.shape == (4, 2) and len(evidence.here) == (patches if of_patches else inliers)
    for name in ("outline", "here", "there"):
        np.testing.assert_array_equal(getattr(evidence, name), getattr(expected, name))


def test_few_patches_alone_show_no_place():
    evidence = evidence_of(without_map(), agreeing(CLEAR_PATCHES - 1, 64))
    assert evidence.outline.shape == evidence.here.shape == (0, 2) and evidence.patches == CLEAR_PATCHES - 1


@given(inliers=COUNTS, more=st.integers(0, 500), wrong=COUNTS)
def test_more_inliers_are_never_less_sure_and_more_matches_never_surer(inliers, more, wrong):
    most = inliers + more + wrong
    assert NO_EVIDENCE <= log_odds(inliers, most) <= log_odds(inliers + more, most)
    assert log_odds(inliers, most + more) <= log_odds(inliers, most)


def test_few_of_many_are_unlikely_and_most_of_many_certain():
    assert log_odds(8, 300) < np.log(0.01) and log_odds(100, 600) > np.log(999)
    assert log_odds(0, 0) == log_odds(0, 500) == NO_EVIDENCE
