from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import reference

from landseer.ensemble.index.engines import ENGINES
from landseer.ensemble.search.expansion.augmentation import Augmenter, augmented
from landseer.ensemble.search.expansion.dqe import NEGATIVES, discriminative
from landseer.ensemble.search.expansion.methods import AUGMENTATION_DEFAULTS
from landseer.ensemble.search.expansion.recipe import Recipe, recipe
from landseer.ensemble.search.expansion.weights import WEIGHTINGS, combined, tempered

METHODS = sorted(AUGMENTATION_DEFAULTS)


def units(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def cosines(queries, neighbours):
    """The attention of a network that changes nothing."""
    return np.einsum("nd,nkd->nk", queries, neighbours)


def augment(vectors, method, k, **options):
    return augmented(vectors, method, k, attention=cosines, threads=1, **options)


def slowly(vectors, method, k, parameter):
    """One vector at a time, by a full sort."""
    rows = []
    for own, vector in enumerate(vectors):
        scores = vectors.astype(np.float64) @ vector.astype(np.float64)
        order = np.array([row for row in np.argsort(-scores, kind="stable") if row != own])
        near, far = vectors[order[:k]], vectors[order[::-1][:NEGATIVES]]
        if method == "dqe":
            rows.append(discriminative(vector, near, far))
        elif method == "lattqe":
            rows.append(combined(vector, near, tempered(near @ vector, parameter)))
        else:
            rows.append(combined(vector, near, WEIGHTINGS[method](near @ vector, parameter)))
    return np.stack(rows)


@pytest.mark.parametrize(("k", "alpha"), [(4, 3), (10, 1)])
def test_alpha_dba_equals_the_reference(k, alpha):
    known = reference("query_expansion.npz")
    found = augment(known["db"], "alphaqe", k, parameter=alpha)
    np.testing.assert_allclose(found, known[f"dirtorch_dba_k{k}_a{alpha}"], atol=1e-5)


@pytest.mark.parametrize(("k", "neighbours"), [(5, 3), (20, 10)])
def test_adba_with_decay_and_aqe_after_it_equal_the_reference(k, neighbours):
    known = reference("query_expansion.npz")
    expected = known[f"dir_dbe{k}_aqe{neighbours}_db"]
    found = augment(known["db"], "aqewd-dir", k)
    # The peer leaves the norms of the weighted means.
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected / norms, atol=1e-5)
    near = np.argsort(-(known["q"] @ expected.T), axis=1, kind="stable")[:, :neighbours]
    queries = np.concatenate([known["q"][:, None], expected[near]], axis=1).mean(axis=1)
    np.testing.assert_allclose(queries, known[f"dir_dbe{k}_aqe{neighbours}_q"], atol=1e-5)
    np.testing.assert_allclose(queries @ (found * norms).T, known[f"dir_dbe{k}_aqe{neighbours}_sim"], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_a_slow_one(method):
    vectors = units(60, 12)
    np.testing.assert_allclose(augment(vectors, method, 7, parameter=0.3), slowly(vectors, method, 7, 0.3), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_without_neighbours_nothing_changes(method):
    vectors = units(5, 8)
    np.testing.assert_array_equal(augment(vectors, method, 0), vectors)
    np.testing.assert_array_equal(augment(vectors[:1], method, 3), vectors[:1])
    assert augment(vectors[:0], method, 3).shape == (0, 8)


@pytest.mark.parametrize("method", METHODS)
def test_more_neighbours_than_there_are(method):
    vectors = units(9, 8)
    np.testing.assert_array_equal(augment(vectors, method, 500), augment(vectors, method, 8))


@pytest.mark.parametrize("method", METHODS)
def test_zero_vectors_stay_and_harm_no_one(method):
    vectors = units(12, 8)
    vectors[5] = 0.0
    found = augment(vectors, method, 4)
    np.testing.assert_array_equal(found[5], 0.0)
    np.testing.assert_allclose(np.linalg.norm(np.delete(found, 5, axis=0), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_are_neighbours_but_no_one_is_its_own(method):
    vectors = np.concatenate([np.repeat(units(1, 16), 6, axis=0), units(6, 16, seed=1)])
    found = augment(vectors, method, 3)
    np.testing.assert_allclose(found[:6], np.repeat(found[:1], 6, axis=0), atol=1e-6)
    if method != "dqe":  # which also turns away from the lowest ranked
        np.testing.assert_allclose(found[:6], vectors[:6], atol=1e-6)


def test_a_vector_is_left_out_of_its_own_neighbours():
    vectors = units(2, 8)
    np.testing.assert_allclose(augment(vectors, "aqe", 1)[0], augment(vectors, "aqe", 1)[1], atol=1e-7)


def test_the_inputs_are_not_modified():
    vectors = units(20, 8)
    before = vectors.copy()
    augment(vectors, "aqe", 3)
    np.testing.assert_array_equal(vectors, before)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_make_no_difference(method):
    vectors = units(40, 16)
    engine = ENGINES["faiss-exact"](16, threads=1)
    engine.add(np.arange(40), vectors)
    how = Recipe(method=method, neighbours=5, parameter=2.0)
    augmenter = Augmenter(engine=engine, recipe=how, attention=cosines, longest=1.01)
    whole = augmenter.rows(np.arange(40))
    for start, stop in ((0, 1), (3, 20), (39, 40)):
        assert augmenter.rows(np.arange(start, stop)).tobytes() == whole[start:stop].tobytes()


def test_the_temperature_goes_from_the_vector_alone_to_the_mean():
    vectors = units(30, 8)
    np.testing.assert_allclose(augment(vectors, "lattqe", 4, parameter=1e-4), vectors, atol=1e-5)
    np.testing.assert_allclose(augment(vectors, "lattqe", 4, parameter=1e6), augment(vectors, "aqe", 4), atol=1e-5)


def test_the_softmax_is_over_all_with_one_for_the_vector_itself():
    weights = tempered(np.array([0.9, -0.5]), 0.1)
    shares = np.exp(np.array([1.0, 0.9, -0.5]) / 0.1)
    np.testing.assert_allclose(weights, shares / shares.sum())
    np.testing.assert_array_equal(tempered(np.empty((3, 0))), np.ones((3, 1)))
    assert np.isfinite(tempered(np.array([1.0, -1.0]), 1e-9)).all()


def test_the_network_gets_the_neighbours_nearest_first():
    vectors, seen = units(10, 8), []

    def attention(queries, neighbours):
        seen.append((queries, neighbours))
        return np.zeros(neighbours.shape[:2])

    augmented(vectors, "lattqe", 3, attention=attention, threads=1)
    [(queries, neighbours)] = seen
    similarities = cosines(queries, neighbours)
    assert (
        neighbours.shape == (10, 3, 8) and (np.diff(similarities, axis=1) <= 0).all() and (similarities < 0.999).all()
    )


def test_lattqe_needs_its_network():
    with pytest.raises(ValueError, match="none was given"):
        augmented(units(4, 8), "lattqe", 2)


@pytest.mark.parametrize("vectors", [np.zeros(8), np.full((2, 8), np.nan)])
def test_a_bad_database_is_rejected(vectors):
    with pytest.raises(ValueError, match="expected finite"):
        augmented(vectors, "aqe", 2)


@settings(max_examples=30, deadline=None)
@given(method=st.sampled_from(METHODS), count=st.integers(0, 30), k=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_norms_are_one(method, count, k, seed):
    draws = np.random.default_rng(seed)
    # Few distinct vectors, so that duplicates are common.
    vectors = units(max(1, count // 3), 6, seed=seed)[draws.integers(0, max(1, count // 3), count)]
    found = augment(vectors, method, k)
    assert found.shape == vectors.shape and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alphaqe:10:3", Recipe(method="alphaqe", neighbours=10, parameter=3.0)),
        ("alphaqe", Recipe(method="alphaqe", neighbours=2, parameter=3.0)),
        ("lattqe", Recipe(method="lattqe", neighbours=4, parameter=0.3)),
        ("lattqe:20:0.05", Recipe(method="lattqe", neighbours=20, parameter=0.05)),
        (" aqe:0 ", Recipe(method="aqe", neighbours=0)),
        ("dqe", Recipe(method="dqe", neighbours=2)),
        ("rank-curve", Recipe(method="rank-curve", neighbours=4)),
        ("rank-curve:16", Recipe(method="rank-curve", neighbours=16)),
    ],
)
def test_recipes_are_read_and_written(text, expected):
    assert recipe(text, positions=64) == expected
    assert recipe(str(expected), positions=64) == expected


def test_a_recipe_is_written_as_one_would():
    assert str(recipe("alphaqe:10:3", positions=64)) == "alphaqe:10:3"
    assert str(recipe("lattqe", positions=3)) == "lattqe:3:0.3"
    assert str(recipe("aqewd-dir:5", positions=64)) == "aqewd-dir:5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("qe", "expected one of"),
        ("none", "expected one of"),
        ("aqe:many", "NAME:NEIGHBOURS"),
        ("aqe:-1", "0 to 1000"),
        ("dqe:65", "0 to 64"),
        ("rank-curve:65", "0 to 64"),
        ("rank-curve:5:1", "too many"),
        ("lattqe:33", "0 to 32"),
        ("aqe:3:3", "too many"),
        ("alphaqe:3:3:3", "too many"),
        ("alphaqe:3:-1", "0 or more"),
        ("alphaqe:3:nan", "0 or more"),
        ("lattqe:3:0", "T above 0"),
    ],
)
def test_recipes_that_cannot_be(text, said):
    with pytest.raises(ValueError, match=said):
        recipe(text, positions=32)
