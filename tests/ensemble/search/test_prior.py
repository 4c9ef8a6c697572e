"""What the first searches say of candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.search.prior import BY_WORDS, NEARER, OTHERS, SMALLEST, log_prior

COSINES = st.lists(st.one_of(st.floats(-1, 1, width=32), st.just(float("nan"))), min_size=1, max_size=30)


def scores(*values):
    return np.array(values, np.float32)


def nothing(count):
    return np.full(count, np.nan, np.float32)


@given(COSINES)
def test_a_nearer_candidate_is_never_less_likely(values):
    cosines = scores(*values)
    odds = log_prior(cosines, nothing(len(values)))
    assert odds.shape == (len(values),) and np.isfinite(odds).all()
    order = np.argsort(cosines)[: np.count_nonzero(~np.isnan(cosines))]
    assert (np.diff(odds[order]) >= 0).all()


@given(COSINES)
def test_a_candidate_without_a_cosine_counts_as_the_farthest(values):
    cosines = scores(*values)
    odds = log_prior(cosines, nothing(len(values)))
    known = ~np.isnan(cosines)
    if known.any():
        np.testing.assert_array_equal(odds[~known], np.full((~known).sum(), odds[known].min()))
    else:
        np.testing.assert_array_equal(odds, 0)


def test_what_tells_is_the_distance_over_that_of_the_candidate_with_ten_nearer_ones():
    cosines = np.linspace(0.9, 0.3, OTHERS + 5).astype(np.float32)
    odds = log_prior(cosines, nothing(len(cosines)))
    distances = 1.0 - cosines.astype(np.float64) + SMALLEST
    np.testing.assert_allclose(odds, NEARER * np.log(distances[OTHERS] / distances), rtol=1e-6, atol=1e-9)
    assert odds[OTHERS] == 0


@pytest.mark.parametrize("cosine", [1.0, 1.0001])
def test_a_copy_is_not_infinitely_likely(cosine):
    odds = log_prior(scores(cosine, *[0.5] * 20), nothing(21))
    assert odds[0] == pytest.approx(NEARER * np.log((0.5 + SMALLEST) / SMALLEST)) and (odds[1:] == 0).all()


def test_each_rank_by_words_costs_and_the_unscored_come_last():
    odds = log_prior(scores(0.5, 0.5, 0.5, 0.5), scores(0.2, np.nan, 0.9, 0.4))
    np.testing.assert_allclose(odds, -BY_WORDS * np.log1p([2, 3, 0, 1]))


def test_equal_words_rank_in_the_order_of_the_candidates():
    odds = log_prior(scores(0.5, 0.5), scores(0.3, 0.3))
    np.testing.assert_allclose(odds, -BY_WORDS * np.log1p([0, 1]))


@given(COSINES)
def test_without_words_only_cosines_count(values):
    cosines = scores(*values)
    ranked = log_prior(nothing(len(values)), np.linspace(1, 0, len(values)).astype(np.float32))
    alone = log_prior(cosines, nothing(len(values)))
    both = log_prior(cosines, np.linspace(1, 0, len(values)).astype(np.float32))
    np.testing.assert_allclose(both, alone + ranked, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(log_prior(nothing(len(values)), nothing(len(values))), 0)


@pytest.mark.parametrize("cosine", [-1.0, 0.3, 1.0, np.nan])
@pytest.mark.parametrize("word", [0.5, np.nan])
def test_a_single_candidate_has_nothing_to_compare_with(cosine, word):
    assert log_prior(scores(cosine), scores(word)).tolist() == [0.0]


def test_no_candidates_have_no_odds():
    assert log_prior(nothing(0), nothing(0)).shape == (0,)
