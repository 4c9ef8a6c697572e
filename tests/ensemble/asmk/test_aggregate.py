from __future__ import annotations

import numpy as np
import pytest
from dense_vlad import dense, vlad
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import reference

from landseer.ensemble.asmk.aggregate import asmk, naive_rasmk, rasmk, rvlad
from landseer.ensemble.asmk.codebook import Codebook

D, K = 8, 16


def rows(count, seed=0, dimension=D):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def codebook(seed=9):
    return Codebook(centroids=rows(K, seed))


@pytest.fixture(scope="module")
def delf():
    return reference("rasmk_delf.npz")


@pytest.mark.parametrize("picture", range(8))
def test_pictures_equal_delf(delf, picture):
    words, name = Codebook(centroids=delf["codebook"]), f"db{picture}"
    features, counts = delf[f"{name}_features"], delf[f"{name}_num_features_per_region"].tolist()
    whole = features[: counts[0]]
    np.testing.assert_allclose(dense(vlad(whole, words), words.words), delf[f"{name}_vlad"], atol=1e-5)
    np.testing.assert_allclose(dense(rvlad(features, counts, words), words.words), delf[f"{name}_r_vlad"], atol=1e-5)
    for kind, got in {"asmk": asmk(whole, words), "r_asmk": rasmk(features, counts, words)}.items():
        np.testing.assert_array_equal(got.words, delf[f"{name}_{kind}_words"])
        np.testing.assert_allclose(got.vectors.ravel(), delf[f"{name}_{kind}"], atol=1e-5)
        np.testing.assert_array_equal(got.binarised().codes.ravel(), delf[f"{name}_{kind}_star"])
        np.testing.assert_array_equal(got.binarised().words, delf[f"{name}_{kind}_star_words"])


def test_queries_equal_delf(delf):
    words = Codebook(centroids=delf["codebook"])
    for query in range(3):
        got = asmk(delf[f"q{query}_features"], words)
        np.testing.assert_array_equal(got.words, delf[f"q{query}_asmk_words"])
        np.testing.assert_allclose(got.vectors.ravel(), delf[f"q{query}_asmk"], atol=1e-5)
    many = asmk(delf["q0_features"], words, multiple=3)
    np.testing.assert_array_equal(many.words, delf["q0_asmk_ma3_words"])
    np.testing.assert_allclose(many.vectors.ravel(), delf["q0_asmk_ma3"], atol=1e-5)


def slow_vlad(features, words, multiple=1):
    whole = np.zeros((words.words, words.dimension))
    for feature in features.astype(np.float64):
        for word in np.argsort(np.square(feature - words.centroids).sum(axis=1), kind="stable")[:multiple]:
            whole[word] += feature - words.centroids[word]
    return whole


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 99))
def test_regions_equal_a_loop(counts, multiple, seed):
    words, features = codebook(), rows(sum(counts), seed)
    mean, naive = np.zeros((K, D)), np.zeros((K, D))
    for region in np.split(features, np.cumsum(counts)[:-1]):
        residuals = slow_vlad(region, words, multiple)
        mean += residuals / max(np.linalg.norm(residuals), 1e-6) / len(counts)
        norms = np.linalg.norm(residuals, axis=1, keepdims=True)
        there = np.count_nonzero(norms > 1e-6)
        naive += np.where(norms > 1e-6, residuals / np.maximum(norms, 1e-6), 0) / max(there, 1) ** 0.5 / len(counts)
    np.testing.assert_allclose(dense(rvlad(features, counts, words, multiple=multiple), K), mean.ravel(), atol=1e-6)
    np.testing.assert_allclose(
        dense(naive_rasmk(features, counts, words, multiple=multiple), K), naive.ravel(), atol=1e-6
    )
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    unit = np.where(norms > 1e-6, mean / np.maximum(norms, 1e-6), 0)
    np.testing.assert_allclose(dense(rasmk(features, counts, words, multiple=multiple), K), unit.ravel(), atol=1e-5)


def test_one_region_is_the_picture():
    features, words = rows(30), codebook()
    for got, expected in [
        (rvlad(features, [30], words), vlad(features, words)),
        (rasmk(features, [30], words), asmk(features, words)),
    ]:
        np.testing.assert_array_equal(got.words, expected.words)
        np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-6)


def test_an_empty_region_counts():
    features, words = rows(30), codebook()
    np.testing.assert_allclose(
        rvlad(features, [30, 0], words).vectors, 0.5 * rvlad(features, [30], words).vectors, atol=1e-6
    )


def test_norms():
    features, words = rows(40), codebook()
    assert np.linalg.norm(vlad(features, words).vectors) == pytest.approx(1.0, abs=1e-6)
    for got in (asmk(features, words), rasmk(features, [25, 15], words)):
        np.testing.assert_allclose(np.linalg.norm(got.vectors, axis=1), 1.0, atol=1e-6)
    assert (np.linalg.norm(naive_rasmk(features, [25, 15], words).vectors, axis=1) <= 1.0).all()


def test_the_order_of_features_does_not_matter():
    features, words = rows(60), codebook()
    shuffled = np.random.default_rng(1).permutation(features)
    for once, again in [
        (asmk(features, words), asmk(shuffled, words)),
        (
            rasmk(np.concatenate([features, rows(9, 5)]), [60, 9], words),
            rasmk(np.concatenate([shuffled, rows(9, 5)]), [60, 9], words),
        ),
    ]:
        np.testing.assert_array_equal(once.words, again.words)
        np.testing.assert_allclose(once.vectors, again.vectors, atol=1e-6)
        np.testing.assert_array_equal(once.binarised().codes, again.binarised().codes)


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_a_picture_without_features_has_no_words(counts):
    for method in (rvlad, rasmk, naive_rasmk):
        empty = method(np.empty((0, D), np.float32), counts, codebook())
        assert empty.words.shape == (0,) and empty.vectors.shape == (0, D)
        assert empty.binarised().codes.shape == (0, 1)


def test_a_feature_on_its_centroid_is_dropped():
    words = codebook()
    assert not len(asmk(words.centroids[:2], words).words)


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"got 5 features for regions of \[3, 1\]"):
        rasmk(rows(5), [3, 1], codebook())
