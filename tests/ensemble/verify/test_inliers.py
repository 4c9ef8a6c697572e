"""The inliers of a map: their errors, and no keypoint in two."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_spatial import one_each

from landseer.ensemble.verify.inliers import BIT, FINE, inside
from landseer.ensemble.verify.matching import Matches


def found(map, here, there, *, alike=None, matches=None):
    """Return errors [m], inliers [m] and their number."""
    count, rows = len(here), np.arange(len(here))
    matches = matches or Matches(query=rows, candidate=rows, distances=np.zeros(count, np.int64))
    errors, inliers = np.empty(count), np.empty(count, np.bool_)
    points = np.ascontiguousarray(np.concatenate([here, there], axis=1).T, np.float64)
    alike = np.ones(count, np.bool_) if alike is None else alike
    number = inside()((matches.query, matches.candidate, matches.distances), points, map, alike, (errors, inliers))
    return errors, inliers, number


def test_a_match_is_an_inlier_up_to_the_largest_error():
    here = np.array([[10.0, 20], [30, 40], [50, 60]])
    errors, inliers, number = found(np.eye(3), here, here + np.array([[3, 4], [0, FINE], [FINE + 0.01, 0]]))
    np.testing.assert_allclose(errors, [5, FINE, FINE + 0.01])
    assert inliers.tolist() == [True, True, False] and number == 2


def test_what_is_behind_the_camera_or_not_alike_is_infinitely_far():
    map = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    here = np.array([[0.0, 0], [0, 0], [100, 0], [200, 0]])
    errors, inliers, number = found(map, here, np.zeros((4, 2)), alike=np.array([True, False, True, True]))
    assert errors.tolist() == [0, np.inf, np.inf, np.inf] and inliers.tolist() == [True, False, False, False]
    assert number == 1


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), most=st.integers(1, 12), kinds=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_of_the_matches_of_a_keypoint_the_cheapest_stays(count, most, kinds, seed):
    draws = np.random.default_rng(seed)
    # Few kinds make ties, in which the first match stays.
    apart = draws.integers(0, kinds, count) / kinds * (FINE + 1)
    matches = Matches(
        query=draws.integers(0, most, count),
        candidate=draws.integers(0, most, count),
        distances=draws.integers(0, 40, count) if kinds > 20 else np.zeros(count, np.int64),
    )
    here = draws.uniform(0, 400, (count, 2)).round()
    errors, inliers, number = found(np.eye(3), here, here + np.stack([apart, 0 * apart], axis=1), matches=matches)
    near = np.flatnonzero(errors <= FINE)
    expected = near[one_each(matches.take(near), errors[near] + BIT * matches.distances[near])]
    assert np.flatnonzero(inliers).tolist() == expected.tolist() and number == len(expected)
    for rows in (matches.query[inliers], matches.candidate[inliers]):
        assert len(set(rows.tolist())) == number
