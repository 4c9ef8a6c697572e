from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.ranking import (
    BY_RANK,
    expanded_ranking,
    first_ranking,
    fused,
    sorted_by_coattention,
    sorted_by_evidence,
    sorted_by_inliers,
    words_ranking,
)
from landseer.ensemble.verify.evidence import NO_EVIDENCE, NOTHING, Evidence


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


def by_words(*pairs):
    keys, scores = zip(*pairs, strict=True) if pairs else ((), ())
    return words_ranking(np.array(keys, np.int64), np.array(scores, np.float32))


def test_fused_hits_are_sorted_by_the_sum_of_reciprocal_ranks():
    after = fused(ranking(0.9, 0.8, 0.7), by_words((12, 0.6), (50, 0.5), (10, 0.4)))
    sums = {10: 1 / 61 + 1 / 63, 11: 1 / 62, 12: 1 / 63 + 1 / 61, 50: 1 / 62}
    # Equal sums go to the picture indexed first.
    assert after.keys.tolist() == [10, 12, 11, 50]
    np.testing.assert_allclose(after.scores, [sums[key] * 61 / 2 for key in after.keys.tolist()], rtol=1e-6)
    np.testing.assert_allclose(after.global_, [0.9, 0.7, 0.8, np.nan], rtol=1e-6)
    np.testing.assert_allclose(after.words, [0.4, 0.6, np.nan, 0.5], rtol=1e-6)
    assert np.isnan(after.inliers).all() and not any(after.evidence)


def test_the_first_of_both_has_a_score_of_one():
    assert fused(ranking(0.2), by_words((10, 0.1))).scores.tolist() == [1.0]


def test_a_ranking_fused_with_nothing_keeps_its_order():
    for after in (fused(ranking(0.9, 0.8), by_words()), fused(ranking(), by_words((10, 0.5), (11, 0.4)))):
        assert after.keys.tolist() == [10, 11]
        np.testing.assert_allclose(after.scores, [0.5, 61 / 124], rtol=1e-6)
    assert len(fused(ranking(), by_words()).keys) == 0


def test_scores_of_an_expansion_stay_with_their_hits_when_fused():
    first = ranking(0.9, 0.8)
    expanded = expanded_ranking(np.array([11, 99]), np.array([0.7, 0.6], np.float32), first)
    after = fused(expanded, by_words((99, 0.3)))
    assert after.keys.tolist() == [99, 11]
    np.testing.assert_allclose(after.expanded, [0.6, 0.7], rtol=1e-6)
    np.testing.assert_allclose(after.global_, [np.nan, 0.8], rtol=1e-6)


@given(
    st.lists(st.integers(0, 15), unique=True, max_size=12),
    st.lists(st.integers(0, 15), unique=True, max_size=12),
)
def test_fused_is_what_its_paper_says(keys, others):
    one = first_ranking(np.array(keys, np.int64), np.linspace(0.9, 0.1, len(keys)).astype(np.float32))
    after = fused(one, by_words(*((key, 0.5) for key in others)))
    sums = {
        key: sum(1 / (60 + ranks.index(key) + 1) for ranks in (keys, others) if key in ranks)
        for key in {*keys, *others}
    }
    assert after.keys.tolist() == sorted(sums, key=lambda key: (-round(sums[key], 9), key))
    assert (np.diff(after.scores) <= 1e-7).all() and (after.scores <= 1).all()


def evidence(log_odds, inliers=5):
    return Evidence(inliers=inliers, log_odds=log_odds, outline=NOTHING, here=NOTHING, there=NOTHING)


def test_hits_are_sorted_by_evidence_and_the_rank_before():
    before = ranking(0.9, 0.8, 0.7, 0.6, 0.5)
    found = {10: evidence(NO_EVIDENCE, 0), 11: evidence(2.0), 13: evidence(9.0), 14: evidence(50.0)}
    after = sorted_by_evidence(before, found, 4)
    # 14 is beyond the first four, and 12 has no keypoints: both count as without evidence.
    assert after.keys.tolist() == [13, 11, 10, 12, 14]
    odds = np.array([9.0, 2.0, NO_EVIDENCE, NO_EVIDENCE, NO_EVIDENCE])
    np.testing.assert_allclose(after.scores, odds - BY_RANK * np.log1p([3, 1, 0, 2, 4]), rtol=1e-6)
    np.testing.assert_array_equal(after.inliers, [5, 5, 0, np.nan, np.nan])
    assert after.evidence.tolist() == [found[13], found[11], found[10], None, None]


def test_equal_evidence_keeps_the_order_of_the_search():
    after = sorted_by_evidence(ranking(0.9, 0.8, 0.7), {key: evidence(1.0) for key in (10, 11, 12)}, 3)
    assert after.keys.tolist() == [10, 11, 12]


def test_weak_evidence_does_not_outrun_a_much_better_rank():
    before = ranking(*np.linspace(0.9, 0.1, 60))
    after = sorted_by_evidence(before, {69: evidence(NO_EVIDENCE + 0.5 * BY_RANK)}, 60)
    assert after.keys[0] == 10 and 69 in after.keys[1:]


def test_no_evidence_changes_nothing():
    before = ranking(0.9, 0.8)
    for after in (sorted_by_evidence(before, {}, 2), sorted_by_evidence(before, {10: evidence(9.0)}, 0)):
        assert after.keys.tolist() == [10, 11] and not any(after.evidence)
