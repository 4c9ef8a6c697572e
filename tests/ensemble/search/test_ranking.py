from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.ranking import expanded_ranking, first_ranking, sorted_by_coattention, sorted_by_inliers


def ranking(*scores):
    return first_ranking(np.arange(10, 10 + len(scores), dtype=np.int64), np.array(scores, np.float32))


def found(*scores):
    return Coattention(scores=np.array(scores, np.float32), weights=np.full((len(scores), 2), 0.5, np.float32))


def test_reranking_sorts_by_the_new_score_and_the_others_follow():
    after = sorted_by_coattention(ranking(0.9, 0.8, 0.7, 0.6), found(0.1, 0.5), 1.0)
    assert after.keys.tolist() == [11, 10, 12, 13]
    assert np.allclose(after.scores, [0.5, 0.1, 0.1, 0.1])
    assert np.allclose(after.global_, [0.8, 0.9, 0.7, 0.6])
    assert np.isnan(after.coattention).tolist() == [False, False, True, True]


def test_equal_scores_go_by_the_order_of_indexing():
    assert sorted_by_coattention(ranking(0.9, 0.8, 0.7), found(0.5, 0.5, 0.5), 1.0).keys.tolist() == [10, 11, 12]


def test_reranking_nothing_changes_nothing():
    before = ranking(0.9, 0.8)
    after = sorted_by_coattention(before, found(), 1.0)
    assert after.keys.tolist() == before.keys.tolist()
    assert after.scores.tolist() == before.scores.tolist()


def test_the_second_search_carries_global_scores_over():
    after = expanded_ranking(np.array([11, 99]), np.array([0.7, 0.6], np.float32), ranking(0.9, 0.8))
    assert np.allclose(after.global_[0], 0.8)
    assert np.isnan(after.global_[1])
    assert after.without(99).keys.tolist() == [11]


def test_verification_sorts_by_inliers_then_by_the_score_before():
    after = sorted_by_inliers(ranking(0.9, 0.8, 0.7, 0.6, 0.5), np.array([4, 12, 4, 0]))
    assert after.keys.tolist() == [11, 10, 12, 13, 14]
    assert np.allclose(after.scores, [12.9, 4.95, 4.85, 0.8, 0.75])
    assert after.inliers[:4].tolist() == [12, 4, 4, 0] and np.isnan(after.inliers[4])
    assert np.allclose(after.global_, [0.8, 0.9, 0.7, 0.6, 0.5])


def test_an_unverified_candidate_keeps_its_place():
    after = sorted_by_inliers(ranking(0.9, 0.8, 0.7, 0.6, 0.5), np.array([-1, 0, -1, 7]))
    assert after.keys.tolist() == [10, 13, 12, 11, 14]
    assert np.allclose(after.scores, [7.8, 7.8, 0.9, 0.9, 0.75])
    assert np.isnan(after.inliers).tolist() == [True, False, True, False, True]


scores = st.floats(-1, 1, width=32)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=12), st.integers(0, 12), st.floats(0, 1, width=32))
def test_it_is_a_permutation_with_descending_scores(pairs, candidates, weight):
    before = ranking(*sorted((pair[0] for pair in pairs), reverse=True))
    after = sorted_by_coattention(before, found(*(pair[1] for pair in pairs[:candidates])), weight)
    assert sorted(after.keys) == sorted(before.keys)
    assert (np.diff(after.scores) <= 0).all()
    if weight == 0:
        assert after.keys.tolist() == before.keys.tolist()


@given(st.lists(st.tuples(scores, st.integers(-1, 500)), max_size=12), st.integers(0, 12))
def test_verification_is_a_permutation_with_descending_scores(pairs, candidates):
    before = ranking(*sorted((pair[0] for pair in pairs), reverse=True))
    inliers = np.array([pair[1] for pair in pairs[:candidates]], np.int64)
    after = sorted_by_inliers(before, inliers)
    assert sorted(after.keys) == sorted(before.keys)
    assert (np.diff(after.scores) <= 0).all()
    stayed = np.flatnonzero(inliers < 0)
    assert after.keys[stayed].tolist() == before.keys[stayed].tolist()
    found = after.inliers[: len(inliers)]
    assert (np.diff(found[~np.isnan(found)]) <= 0).all()
