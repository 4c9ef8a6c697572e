from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from shared_files import reference

from landseer.ensemble.search.expansion.dqe import discriminative
from landseer.ensemble.search.expansion.methods import DEFAULTS, RANK_CURVE, classical, limits
from landseer.ensemble.search.expansion.svm import BIAS, linear_svm
from landseer.ensemble.search.expansion.weights import (
    CURVE,
    WEIGHTINGS,
    alpha_qe,
    aqe,
    aqewd,
    aqewd_dir,
    combined,
    rank_curve,
)


def units(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def nearest(queries, database, k):
    similarities = queries @ database.T
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return database[order], np.take_along_axis(similarities, order, axis=1)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0), (2, 0), (5, 1), (10, 3), (50, 3)])
def test_alpha_qe_equals_the_reference(k, alpha):
    known = reference("query_expansion.npz")
    neighbours, similarities = nearest(known["q"], known["db"], k)
    found = combined(known["q"], neighbours, alpha_qe(similarities, alpha))
    np.testing.assert_allclose(found, known[f"dirtorch_qe_k{k}_a{alpha}"], atol=1e-5)


@pytest.mark.parametrize("k", [2, 10])
def test_aqe_equals_the_reference(k):
    known = reference("query_expansion.npz")
    neighbours, similarities = nearest(known["q"], known["db"], k)
    expected = known[f"dir_dbe0_aqe{k}_q"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(combined(known["q"], neighbours, aqe(similarities)), expected, atol=1e-5)


def test_the_two_decays_differ_by_one_step():
    similarities = np.array([0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(aqewd(similarities), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(aqewd_dir(similarities), [1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(alpha_qe(np.array([0.5, -0.5]), 2.0), [1, 0.25, 0])


def test_the_rank_curve_is_65_numbers_that_fall_below_zero():
    assert len(CURVE) == 65 and CURVE[0] == 1.0
    np.testing.assert_array_equal(rank_curve(np.zeros(64)), CURVE)
    assert min(CURVE[1:34]) > 0 > max(CURVE[41:])
    assert (DEFAULTS[RANK_CURVE], limits(8)[RANK_CURVE]) == (8, 64)


@pytest.mark.parametrize("k", range(1, 65))
def test_the_rank_curve_is_stretched_over_fewer_neighbours_and_reads_no_similarity(k):
    some, others = np.random.default_rng(k).uniform(-1, 1, (2, 3, k))
    weights = rank_curve(some)
    np.testing.assert_array_equal(weights, rank_curve(others))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert weights.shape == (3, k + 1) and weights[0, 0] == 1.0
    places = 0.5 + (np.arange(k) + 0.5) * 64 / k
    below = np.floor(places).astype(int)
    share = places - below
    expected = (1 - share) * np.array(CURVE)[below] + share * np.array([*CURVE, 0.0])[below + 1]
    np.testing.assert_allclose(weights[0, 1:], expected, atol=1e-12)
    query, neighbours = units(16, seed=k), units(k, 16, seed=100 + k)
    expanded = classical(RANK_CURVE, query, neighbours, alpha=3.0, lowest=neighbours[:0])
    assert np.linalg.norm(expanded) == pytest.approx(1, abs=1e-6)
    total = query + expected @ neighbours
    np.testing.assert_allclose(expanded, total / np.linalg.norm(total), atol=1e-6)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_without_neighbours_the_query_stays(name):
    query = units(8)
    weights = WEIGHTINGS[name](np.empty(0), 3.0)
    np.testing.assert_array_equal(weights, [1])
    np.testing.assert_allclose(combined(query, np.empty((0, 8)), weights), query, atol=1e-7)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_zero_vectors_weigh_nothing_and_duplicates_do_no_harm(name):
    query, other = units(2, 8)
    zero = np.zeros(8, np.float32)
    some = np.stack([other, zero])
    found = combined(query, some, WEIGHTINGS[name](some @ query, 3.0))
    alone = combined(query, other[None], WEIGHTINGS[name](some @ query, 3.0)[:2])
    np.testing.assert_allclose(found, alone, atol=1e-6)
    same = np.stack([query, query])
    np.testing.assert_allclose(combined(query, same, WEIGHTINGS[name](same @ query, 3.0)), query, atol=1e-6)


def test_a_sum_that_vanishes_leaves_the_query():
    query = units(8)
    np.testing.assert_array_equal(combined(query, -query[None], aqe(np.array([-1.0]))), query)


def test_many_queries_at_a_time_are_as_one_by_one():
    queries, neighbours = units(5, 16), units(5, 7, 16, seed=1)
    similarities = np.einsum("qd,qkd->qk", queries, neighbours)
    for weighting in WEIGHTINGS.values():
        together = combined(queries, neighbours, weighting(similarities, 3.0))
        alone = [combined(q, n, weighting(s, 3.0)) for q, n, s in zip(queries, neighbours, similarities, strict=True)]
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-7)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_svm_finds_the_minimum(penalty, seed):
    samples = units(10, 5, seed=seed).astype(np.float64)
    signs = np.where(np.arange(10) < 4, 1.0, -1.0)

    def loss(w):
        margins = signs * (samples @ w[:5] + BIAS * w[5])
        return w @ w / 2 + penalty * np.maximum(0, 1 - margins).sum()

    # The bias follows from the weights: it is the sixth weight, of a feature that is always 1.
    weights = linear_svm(samples, signs, penalty=penalty)
    ours = min(loss(np.append(weights, b)) for b in np.linspace(-5, 5, 20001))
    best = min(minimize(loss, start, method="Powell").fun for start in (np.zeros(6), np.append(weights, 0.0)))
    assert ours <= best + 1e-4 * max(1, abs(best))


def test_dqe_turns_towards_the_positives_and_away_from_the_negatives():
    query, positive, negative = units(3, 64)
    found = discriminative(query, np.stack([positive]), np.stack([negative]))
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert found @ positive > query @ positive
    assert found @ negative < query @ negative


def test_dqe_with_nothing_to_divide_leaves_the_query():
    query, other = units(2, 8)
    none = np.empty((0, 8), np.float32)
    for positives, negatives in ((none, other[None]), (other[None], none), (other[None], other[None])):
        np.testing.assert_array_equal(discriminative(query, positives, negatives), query)
