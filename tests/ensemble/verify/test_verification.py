from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shared_files import reference

from landseer.ensemble.verify.verification import (
    METHODS,
    Located,
    VerificationSettings,
    matched,
    reordered,
    verified,
    verify,
)

TURN = np.array([[0.8, -0.3, 40.0], [0.2, 0.9, -10.0]])


def unit(count, seed=0, dimension=32):
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def located(count=60, seed=0):
    positions = np.random.default_rng(seed + 50).uniform(0, 600, (count, 2)).astype(np.float32)
    return Located(features=unit(count, seed), positions=positions)


def moved(picture, kept, affine=TURN, seed=1):
    """The picture seen elsewhere: the first `kept` features where the map puts them, the others anywhere."""
    positions = np.random.default_rng(seed).uniform(0, 600, picture.positions.shape)
    positions[:kept] = picture.positions[:kept] @ affine[:, :2].T + affine[:, 2]
    return Located(features=picture.features, positions=positions.astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("case", "slack"), [(0, 1), (1, 1), (2, 3), (3, 1)])
def test_inliers_equal_delf(case, slack, method):
    known = reference("geometric_verification_delf.npz")
    query, candidate = (
        Located(features=known[f"c{case}_{side}_des"], positions=known[f"c{case}_{side}_xy"]) for side in ("q", "db")
    )
    found = verified(query, candidate, VerificationSettings(method=method)).count
    # Three planted matches fit by chance; then up to 6 are alike in meaning.
    assert abs(found - known[f"c{case}_planted_inliers"]) <= slack


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_map_is_found(method):
    query = located()
    found = verified(moved(query, 40), query, VerificationSettings(method=method))
    assert found.inliers[:40].all() and found.count <= 42
    np.testing.assert_allclose(found.affine, TURN, atol=0.05 * np.abs(TURN).max())
    np.testing.assert_array_equal(found.matches[:, 0], found.matches[:, 1])


def test_it_repeats_itself():
    query, counts = located(200), []
    for _ in range(3):
        counts.append(verify(query, [moved(query, kept) for kept in (0, 10, 30, 100)]).tolist())
    assert counts[0] == counts[1] == counts[2]
    assert counts[0] == sorted(counts[0])


def test_the_order_of_the_features_does_not_matter_for_a_clear_match():
    query = located()
    other, shuffled = moved(query, 40), np.random.default_rng(3).permutation(60)
    again = Located(features=other.features[shuffled], positions=other.positions[shuffled])
    assert abs(verified(query, other).count - verified(query, again).count) <= 1


def test_matches_are_the_nearest_below_the_distance():
    query, candidate = unit(20), unit(30, seed=1)
    distances = np.linalg.norm(query[:, None] - candidate, axis=2)
    near = np.flatnonzero(distances.min(axis=1) < 1.1)
    assert 0 < len(near) < 20
    expected = np.stack([near, distances.argmin(axis=1)[near]], axis=1)
    np.testing.assert_array_equal(matched(query, candidate, distance=1.1), expected)
    both = [pair for pair in expected.tolist() if distances[:, pair[1]].argmin() == pair[0]]
    assert matched(query, candidate, distance=1.1, mutual=True).tolist() == both


def test_many_features_may_match_one_unless_matches_are_mutual():
    query = located(20)
    one = Located(features=query.features[:1], positions=query.positions[:1])
    many = replace(query, features=np.repeat(query.features[:1], 20, axis=0))
    assert len(verified(many, one).matches) == 20
    assert len(verified(many, one, VerificationSettings(mutual=True)).matches) == 1


@pytest.mark.parametrize("method", METHODS)
def test_too_few_matches_give_no_inliers(method):
    query, settings = located(), VerificationSettings(method=method)
    empty = Located(features=np.empty((0, 32), np.float32), positions=np.empty((0, 2), np.float32))
    three = Located(features=query.features[:3], positions=query.positions[:3])
    assert verify(query, [empty, three], settings).tolist() == [0, 0]
    assert verify(empty, [query], settings).tolist() == [0]
    assert verify(query, [], settings).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_features_in_one_place_or_on_one_line_do_no_harm(method):
    query = located()
    for positions in (np.zeros((60, 2)), np.stack([np.arange(60.0), np.arange(60.0)], axis=1)):
        found = verified(
            query, replace(query, positions=positions.astype(np.float32)), VerificationSettings(method=method)
        )
        assert found.inliers.shape == (60,)


def test_the_list_is_sorted_by_inliers_then_score():
    order = reordered(np.array([0, 7, 0, 7, 9]), np.array([0.9, 0.5, 0.9, 0.6, 0.1]))
    assert order.tolist() == [4, 3, 1, 0, 2]
    with pytest.raises(ValueError, match="2 inlier counts and 1 scores"):
        reordered(np.array([1, 2]), np.array([1.0]))


def test_bad_input_is_rejected():
    with pytest.raises(ValueError, match="features of 32 and 16 values"):
        matched(unit(3), unit(3, dimension=16), distance=0.9)
    with pytest.raises(ValueError, match="expected one of ransac, magsac, accurate"):
        VerificationSettings(method="lmeds")
    with pytest.raises(ValueError, match="expected distance, residual and trials above 0"):
        VerificationSettings(residual=0.0)


def test_too_few_inliers_count_as_none():
    draws = np.random.default_rng(0)
    rows = np.eye(12, dtype=np.float32)
    places = draws.uniform(0, 500, (12, 2)).astype(np.float32)
    query = Located(features=rows, positions=places)
    candidates = [Located(features=rows[:n], positions=places[:n] * 0.5 + 30) for n in (12, 8, 5)]
    assert verify(query, candidates).tolist() == [12, 8, 5]
    assert verify(query, candidates, VerificationSettings(least=8)).tolist() == [12, 8, 0]
