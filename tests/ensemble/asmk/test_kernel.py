from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dense_vlad import dense, vlad
from shared_files import reference

from landseer.ensemble.asmk.aggregate import Aggregated, Binary, asmk, rasmk, rvlad
from landseer.ensemble.asmk.bits import binarise, hamming, lanes
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.asmk.kernel import KERNELS, Kernel, idf, similarity

HOW = {"asmk_d32.npz": 32, "asmk_d24_padding_bias.npz": 24}


def picture(words, seed=0, dimension=40):
    vectors = np.random.default_rng(seed).normal(size=(len(words), dimension))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Aggregated(words=np.asarray(words, np.int64), vectors=unit)


def as_stored(binary):
    """Count the bits that pad a code to 32, as the `asmk` package does."""
    wide = np.pad(binary.codes, ((0, 0), (0, -binary.codes.shape[1] % 4)))
    return Binary(words=binary.words, codes=wide, bits=8 * wide.shape[1])


def aggregated(known, codebook, side, multiple=1):
    names = known[f"{side}_imids"]
    rows = [known[side][names == name] for name in range(names.max() + 1)]
    return [asmk(features, codebook, multiple=multiple) for features in rows]


@pytest.mark.parametrize("name", HOW)
def test_words_residuals_bits_and_idf_equal_asmk(name):
    known = reference(name)
    codebook = Codebook(centroids=known["centroids"])
    np.testing.assert_array_equal(codebook.assign(known["db"])[:, 0], known["db_words"])
    pictures = aggregated(known, codebook, "db")
    np.testing.assert_array_equal(np.concatenate([one.words for one in pictures]), known["agg_words"])
    np.testing.assert_array_equal(
        np.repeat(np.arange(len(pictures)), [len(one.words) for one in pictures]), known["agg_imids"]
    )
    np.testing.assert_allclose(np.concatenate([one.vectors for one in pictures]), known["agg_des"], atol=1e-5)
    codes = np.concatenate([as_stored(one.binarised()).codes for one in pictures])
    np.testing.assert_array_equal(codes.view(">u4"), known["agg_bits_uint32"])
    weights = idf(np.bincount(known["agg_words"], minlength=codebook.words), len(pictures))
    np.testing.assert_allclose(weights, known["idf"], atol=1e-5)


@pytest.mark.parametrize("multiple", [1, 5])
@pytest.mark.parametrize("weighted", [0, 1])
@pytest.mark.parametrize("binary", [0, 1])
@pytest.mark.parametrize("name", HOW)
def test_scores_equal_asmk(name, binary, weighted, multiple):
    known = reference(name)
    codebook = Codebook(centroids=known["centroids"])
    queries, pictures = aggregated(known, codebook, "q", multiple), aggregated(known, codebook, "db")
    if binary:
        queries, pictures = ([as_stored(one.binarised()) for one in side] for side in (queries, pictures))
    weights = known["idf"] if weighted else None
    scores = [[similarity(one, other, KERNELS["how"], weights=weights) for other in pictures] for one in queries]
    expected = known[f"scores_bin{binary}_idf{weighted}_ma{multiple}"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    for mine, theirs in zip(np.array(scores), known[f"ranks_bin{binary}_idf{weighted}_ma{multiple}"], strict=True):
        # Bits tie, and the peer's fp32 decides among the tied: its ranking must be one of ours.
        assert (np.diff(mine[theirs]) < 1e-6).all()


@pytest.mark.parametrize(("tau", "alpha"), [(0.1, 1.0), (0.25, 3.0)])
@pytest.mark.parametrize("name", HOW)
def test_selectivity_equals_asmk(name, tau, alpha):
    known = reference(name)
    codebook = Codebook(centroids=known["centroids"])
    kernel = Kernel(alpha=alpha, tau=tau, normalised=True)
    pictures = aggregated(known, codebook, "db")
    scores = [[similarity(one, other, kernel) for other in pictures] for one in aggregated(known, codebook, "q")]
    np.testing.assert_allclose(scores, known[f"scores_bin0_idf0_ma1_tau{tau}_alpha{alpha}"], atol=1e-5)


@pytest.mark.parametrize("normalised", [0, 1])
@pytest.mark.parametrize("regional", [0, 1])
@pytest.mark.parametrize("binary", [0, 1])
def test_similarities_equal_delf(binary, regional, normalised):
    known = reference("rasmk_delf.npz")
    words = Codebook(centroids=known["codebook"])
    queries = [asmk(known[f"q{query}_features"], words) for query in range(3)]
    pictures = []
    for name in range(8):
        features, counts = known[f"db{name}_features"], known[f"db{name}_num_features_per_region"].tolist()
        pictures.append(rasmk(features, counts, words) if regional else asmk(features[: counts[0]], words))
    if binary:
        queries, pictures = ([one.binarised() for one in side] for side in (queries, pictures))
    kernel = Kernel(normalised=bool(normalised))
    scores = [[similarity(query, one, kernel) for one in pictures] for query in queries]
    kind = f"{'r_' * regional}asmk{'_star' * binary}"
    np.testing.assert_allclose(scores, known[f"sim_q_vs_{kind}_l2norm{normalised}"], atol=1e-5)


def test_vlad_is_compared_by_inner_product_as_delf_does():
    known = reference("rasmk_delf.npz")
    words = Codebook(centroids=known["codebook"])
    queries = [dense(vlad(known[f"q{query}_features"], words), words.words) for query in range(3)]
    for name in range(8):
        features, counts = known[f"db{name}_features"], known[f"db{name}_num_features_per_region"].tolist()
        for kind, got in {"vlad": vlad(features[: counts[0]], words), "r_vlad": rvlad(features, counts, words)}.items():
            np.testing.assert_allclose(
                np.array(queries) @ dense(got, words.words), known[f"sim_q_vs_{kind}_l2norm0"][:, name], atol=1e-5
            )


def test_padding_bits_are_not_counted():
    one = picture([0, 3], dimension=24)
    opposite = replace(one, vectors=-one.vectors)
    kernel = Kernel(alpha=1.0, tau=-2.0)
    assert similarity(one.binarised(), opposite.binarised(), kernel) == -2.0
    # The bias of the `asmk` package: 1 - 2 * 24 / 32 of each of two words.
    assert similarity(as_stored(one.binarised()), as_stored(opposite.binarised()), kernel) == -1.0


@pytest.mark.parametrize("dimension", [1, 7, 8, 24, 64, 65, 128, 2048])
def test_packed_codes_differ_where_unpacked_ones_do(dimension):
    generator = np.random.default_rng(dimension)
    these, those = generator.normal(size=(2, 50, dimension))
    expected = ((these > 0) != (those > 0)).sum(axis=1)
    np.testing.assert_array_equal(hamming(lanes(binarise(these)), lanes(binarise(those))), expected)


@pytest.mark.parametrize("binary", [False, True])
def test_a_picture_is_most_like_itself(binary):
    one = picture([1, 4, 7])
    one = one.binarised() if binary else one
    assert similarity(one, one, KERNELS["asmk"]) == pytest.approx(1.0, abs=1e-6)
    assert similarity(one, one, KERNELS["r-asmk"]) == pytest.approx(3.0, abs=1e-6)
    weights = np.linspace(0.1, 2.0, 8)
    assert similarity(one, one, KERNELS["how-idf"], weights=weights) == pytest.approx(1.0, abs=1e-6)


def test_it_does_not_matter_which_is_the_query():
    one, other = picture([1, 4, 7, 9]), picture([0, 4, 9], seed=1)
    for kernel in KERNELS.values():
        assert similarity(one, other, kernel) == pytest.approx(similarity(other, one, kernel), abs=1e-12)


def test_nothing_to_compare():
    one, empty = picture([1, 4]), picture([])
    assert similarity(one, empty, Kernel()) == similarity(empty, one, Kernel()) == -1.0
    assert similarity(empty.binarised(), empty.binarised(), Kernel()) == -1.0
    assert similarity(one, picture([2, 3]), Kernel()) == 0.0


def test_selectivity_is_above_tau_and_keeps_the_sign():
    kernel = Kernel(alpha=2.0, tau=-0.5)
    np.testing.assert_allclose(kernel.selected(np.array([-0.5, -0.4, 0.0, 0.3])), [0.0, -0.16, 0.0, 0.09])


def test_a_word_that_all_have_weighs_nothing_and_one_that_none_has_weighs_one():
    np.testing.assert_allclose(idf(np.array([0, 1, 10]), 10), [1.0, np.log(10) ** 2, 0.0])
    assert similarity(picture([2]), picture([2]), KERNELS["how-idf"], weights=idf(np.array([0, 1, 10]), 10)) == 0.0


def test_incomparable_pictures_are_rejected():
    with pytest.raises(ValueError, match="codes of 40 and 24 bits"):
        similarity(picture([1]).binarised(), picture([1], dimension=24).binarised(), Kernel())
    with pytest.raises(TypeError, match="binarise both, or neither"):
        similarity(picture([1]), picture([1]).binarised(), Kernel())
    with pytest.raises(ValueError, match="alpha = 0"):
        Kernel(alpha=0)
