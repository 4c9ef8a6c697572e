"""What D2R compares R-ASMK with: residuals in full, and an entry for each region."""

from __future__ import annotations

import numpy as np
import pytest
from dense_vlad import dense

from landseer.ensemble.asmk.aggregate import Aggregated, asmk, rvlad
from landseer.ensemble.asmk.codebook import Codebook, train
from landseer.ensemble.asmk.kernel import INNER_PRODUCT, KERNELS, similarity
from landseer.ops.evaluate.regional_search import RegionalSearch
from landseer.ops.evaluate.vector_lists import VectorLists

D = 12


def features(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def book() -> Codebook:
    return train(features(300, 99), words=6)


@pytest.mark.parametrize("kernel", ["asmk", "r-asmk", "how"])
def test_lists_of_residuals_score_as_the_kernel_does(book: Codebook, kernel: str) -> None:
    pictures = [asmk(features(count, count), book) for count in (0, 1, 5, 40)]
    lists = VectorLists(pictures, words=book.words, kernel=KERNELS[kernel])
    query = asmk(features(7, 50), book)
    pairs = [max(0.0, similarity(query, one, KERNELS[kernel])) for one in pictures]
    np.testing.assert_allclose(lists.scores(query), pairs, atol=1e-6)
    assert lists.nbytes > 0
    nothing = Aggregated(words=np.empty(0, np.int64), vectors=np.empty((0, D), np.float32))
    assert lists.scores(nothing).tolist() == [0.0] * 4
    assert VectorLists([], words=book.words, kernel=KERNELS[kernel]).scores(query).tolist() == []


def test_vlad_is_compared_by_the_whole_inner_product(book: Codebook) -> None:
    pictures = [rvlad(features(9, seed), [5, 0, 4], book) for seed in range(5)]
    query = rvlad(features(6, 50), [6], book)
    scores = VectorLists(pictures, words=book.words, kernel=INNER_PRODUCT).scores(query)
    whole = [float(dense(query, book.words) @ dense(one, book.words)) for one in pictures]
    np.testing.assert_allclose(scores, whole, atol=1e-6)
    assert min(whole) < 0  # which a kernel that leaves out what is below tau would not tell


def test_lists_of_residuals_know_no_idf(book: Codebook) -> None:
    with pytest.raises(ValueError, match="weighs all words alike"):
        VectorLists([], words=book.words, kernel=KERNELS["how-idf"])


def test_the_regions_of_a_picture_are_pooled(book: Codebook) -> None:
    pictures = [
        [asmk(features(4 * part, 10 * row + part), book).binarised() for part in range(row + 1)] for row in range(4)
    ]
    search, query = RegionalSearch(pictures, book), asmk(features(8, 50), book).binarised()
    each = [[similarity(query, one, KERNELS["asmk"]) for one in regions] for regions in pictures]
    np.testing.assert_allclose(search.scores(query, "max"), [max(one) for one in each])
    np.testing.assert_allclose(search.scores(query, "mean"), [np.mean(one) for one in each])
    assert search.file.size == 10 and each[0] == [-1.0]


def test_a_picture_without_regions_is_refused(book: Codebook) -> None:
    with pytest.raises(ValueError, match="expected the whole picture as its first region"):
        RegionalSearch([[]], book)
