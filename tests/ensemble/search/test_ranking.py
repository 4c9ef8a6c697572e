from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.search.coattention import Coattention
from landseer.ensemble.search.prior import log_prior
from landseer.ensemble.search.ranking import (
    expanded_ranking,
    first_ranking,
    fused,
    recognised,
    sorted_by_coattention,
    sorted_by_evidence,
    sorted_by_inliers,
    unverified_keys,
    verified,
    with_verified,
    words_ranking,
)
from landseer.ensemble.verify.evidence import NO_EVIDENCE, NOTHING, Evidence, Via


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


def evidence(log_odds, inliers=5, patches=0):
    return Evidence(inliers=inliers, log_odds=log_odds, patches=patches, outline=NOTHING, here=NOTHING, there=NOTHING)


def equally_near(count):
    """Return a ranking of hits of which the first searches say the same."""
    return ranking(*[0.5] * count)


def test_hits_are_sorted_by_evidence():
    found = {10: evidence(NO_EVIDENCE, 0), 11: evidence(2.0), 13: evidence(9.0), 14: evidence(50.0)}
    after = sorted_by_evidence(equally_near(5), found, 4)
    # 14 is beyond the first four, and 12 has no keypoints: both count as without evidence.
    assert after.keys.tolist() == [13, 11, 10, 12, 14]
    np.testing.assert_allclose(after.scores[:4], [9.0, 2.0, NO_EVIDENCE, NO_EVIDENCE], rtol=1e-6)
    assert after.scores[4] < NO_EVIDENCE
    np.testing.assert_array_equal(after.inliers, [5, 5, 0, np.nan, np.nan])
    assert after.evidence.tolist() == [found[13], found[11], found[10], None, None]


def test_only_hits_that_keypoints_are_sure_of_count_as_verified():
    found = {10: evidence(4.7), 11: evidence(4.5), 13: evidence(9.0), 14: evidence(NO_EVIDENCE, 0, patches=400)}
    after = sorted_by_evidence(equally_near(5), found, 5)
    # 4.6 is a probability of 0.99; patches say nothing of it.
    assert verified(after, 10) == {13: found[13], 10: found[10]}
    assert list(verified(after, 1)) == [13]
    assert verified(equally_near(3), 10) == {}
    assert unverified_keys(after, 10).tolist() == [14, 11], "12 was not compared"
    assert unverified_keys(after, 1).tolist() == [14]


def test_no_verified_hit_is_lost_to_the_second_search():
    before = sorted_by_evidence(equally_near(4), {11: evidence(9.0), 12: evidence(8.0), 13: evidence(-1.0)}, 4)
    again = expanded_ranking(np.array([20, 12, 10]), np.array([0.9, 0.8, 0.7], np.float32), before)
    after = with_verified(again, before)
    assert after.keys.tolist() == [11, 12, 20, 10]
    np.testing.assert_allclose(after.expanded, [np.nan, 0.8, 0.9, 0.7], rtol=1e-6)


def test_a_hit_that_is_recognised_by_way_of_another_is_sorted_by_that():
    before = sorted_by_evidence(equally_near(3), {10: evidence(9.0), 11: evidence(1.0), 12: evidence(-5.0, 3)}, 3)
    via = Via(key=10, inliers=40, log_odds=6.0, outline=NOTHING)
    after = recognised(before, {12: via, 11: replace(via, log_odds=0.5)}, 3)
    assert after.keys.tolist() == [10, 12, 11]
    assert [one.via for one in after.evidence] == [None, via, None]
    assert after.inliers.tolist() == [5, 3, 5], "the query's own"


def test_nearness_counts_by_the_cosines_that_are_given():
    near = np.array([0.1, 0.2, 0.9], np.float32)
    assert sorted_by_evidence(equally_near(3), {}, 3).keys.tolist() == [10, 11, 12]
    assert sorted_by_evidence(equally_near(3), {}, 3, cosines=near).keys.tolist() == [12, 11, 10]


def test_hits_are_sorted_by_patches_where_keypoints_say_the_same():
    found = {10: evidence(NO_EVIDENCE, 0), 11: evidence(-4.0, 5), 12: evidence(NO_EVIDENCE, 0, patches=36)}
    after = sorted_by_evidence(equally_near(3), found, 3)
    assert after.keys.tolist() == [12, 11, 10]
    np.testing.assert_allclose(after.scores, [found[12].score, -4.0, NO_EVIDENCE], rtol=1e-6)
    assert found[12].score > 0 and after.inliers.tolist() == [0, 5, 0]


def test_the_first_searches_count_with_the_evidence():
    before = fused(ranking(0.9, 0.6, 0.5), by_words((12, 0.6), (10, 0.4)))
    found = {10: evidence(-5.0), 11: evidence(4.0), 12: evidence(-1.0)}
    after = sorted_by_evidence(before, found, 3)
    odds = dict(zip(before.keys.tolist(), log_prior(before.global_, before.words), strict=True))
    expected = {key: found[key].score + odds[key] for key in odds}
    assert after.keys.tolist() == sorted(expected, key=lambda key: -expected[key]) == [10, 11, 12]
    np.testing.assert_allclose(after.scores, [expected[key] for key in after.keys.tolist()], rtol=1e-5)


def test_equal_evidence_keeps_the_order_of_the_search():
    for before in (ranking(0.9, 0.8, 0.7), equally_near(3)):
        after = sorted_by_evidence(before, {key: evidence(1.0) for key in (10, 11, 12)}, 3)
        assert after.keys.tolist() == [10, 11, 12]


def test_no_evidence_changes_nothing():
    before = ranking(0.9, 0.8)
    for after in (sorted_by_evidence(before, {}, 2), sorted_by_evidence(before, {10: evidence(9.0)}, 0)):
        assert after.keys.tolist() == [10, 11] and not any(after.evidence)


@given(
    st.lists(st.tuples(scores, st.one_of(st.none(), st.floats(NO_EVIDENCE, 200), st.integers(1, 388))), max_size=14),
    st.integers(0, 14),
)
def test_evidence_makes_a_permutation_with_descending_scores(pairs, count):
    before = ranking(*sorted((pair[0] for pair in pairs), reverse=True))
    count = min(count, len(pairs))
    given = {10 + place: one for place, (_, one) in enumerate(pairs) if one is not None}
    found = {
        key: evidence(NO_EVIDENCE, 0, patches=one) if isinstance(one, int) else evidence(one)
        for key, one in given.items()
    }
    after = sorted_by_evidence(before, found, count)
    assert sorted(after.keys.tolist()) == before.keys.tolist()
    assert sorted(after.keys[:count].tolist()) == before.keys[:count].tolist()
    assert after.keys[count:].tolist() == before.keys[count:].tolist(), "the others follow in their order"
    assert (np.diff(after.scores) <= 0).all() and np.isfinite(after.scores).all()
    np.testing.assert_array_equal(np.sort(after.global_)[::-1], before.global_)
