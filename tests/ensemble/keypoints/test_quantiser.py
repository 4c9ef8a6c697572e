"""Words of keypoints, and the codebook that ships."""

from __future__ import annotations

import numpy as np
import pytest
from prints import cover

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.keypoints.extractor import Extractor, frame_of
from landseer.ensemble.keypoints.quantiser import EXACT, MULTIPLE, Quantiser
from landseer.ensemble.keypoints.rootsift import DIMENSION, QUERY_SIDE, Keypoints, extract, root_sift
from landseer.ensemble.keypoints.shipped import is_for_keypoints, shipped_codebook

FRAME = (640, 480)


def described(count, seed=0):
    draws = np.random.default_rng(seed)
    return Keypoints(
        descriptors=root_sift(draws.gamma(0.4, 40, (count, DIMENSION))),
        positions=draws.uniform(0, 400, (count, 2)).astype(np.float32),
        sizes=draws.uniform(2, 30, count).astype(np.float32),
        angles=draws.uniform(0, 6, count).astype(np.float32),
    )


def book(words, seed=1):
    return Codebook(centroids=described(words, seed).descriptors)


def bits_of(descriptors, book, words):
    return np.packbits(descriptors - book.centroids[words] > 0, axis=1)


@pytest.mark.parametrize("words", [1, 7, 300])
def test_words_of_a_small_codebook_are_the_nearest(words):
    quantiser, keypoints = Quantiser(book(words)), described(60)
    apart = np.linalg.norm(keypoints.descriptors[:, None] - book(words).centroids[None], axis=2)
    found = quantiser.compact(keypoints, FRAME)
    np.testing.assert_array_equal(found.words, apart.argmin(axis=1))
    np.testing.assert_array_equal(found.codes, bits_of(keypoints.descriptors, book(words), found.words))
    for name in ("positions", "sizes", "angles"):
        np.testing.assert_array_equal(getattr(found, name), getattr(keypoints, name))
    assert found.frame == FRAME and found.words.dtype == np.int64

    query = quantiser.query(keypoints, FRAME)
    many = min(words, MULTIPLE)
    np.testing.assert_array_equal(query.words, apart.argsort(axis=1, kind="stable")[:, :many])
    for place in range(many):
        wanted = bits_of(keypoints.descriptors, book(words), query.words[:, place])
        np.testing.assert_array_equal(query.codes[:, place], wanted)
    np.testing.assert_array_equal(query.keypoints.words, found.words)
    np.testing.assert_array_equal(query.keypoints.codes, found.codes)


def test_a_large_codebook_is_searched_in_cells_and_mostly_finds_the_nearest():
    large = shipped_codebook()
    assert large.words > EXACT
    keypoints = extract(cover(1))
    quantiser = Quantiser(large)
    nearest = large.assign(keypoints.descriptors, multiple=MULTIPLE)
    found, query = quantiser.compact(keypoints, FRAME), quantiser.query(keypoints, FRAME)
    assert (found.words == nearest[:, 0]).mean() > 0.85
    np.testing.assert_array_equal(query.words[:, 0], found.words)
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(query.words, nearest, strict=True)]) > 0.8 * MULTIPLE
    # The same each time, whoever else searches.
    np.testing.assert_array_equal(Quantiser(large).compact(keypoints, FRAME).words, found.words)


def test_words_of_a_crowded_codebook_are_all_there():
    """Nearly all words lie in one place, so cells hold fewer than are asked for, or none."""
    rows = np.repeat(described(1).descriptors, EXACT + 1, axis=0)
    rows += np.random.default_rng(2).normal(0, 1e-4, rows.shape).astype(np.float32)
    rows[:3] = described(3, 5).descriptors
    crowded, keypoints = Codebook(centroids=rows), described(40, 6)
    query, found = Quantiser(crowded).query(keypoints, FRAME), Quantiser(crowded).compact(keypoints, FRAME)
    assert query.words.min() >= 0 and query.words.max() <= EXACT
    assert found.words.min() >= 0 and found.words.max() <= EXACT


@pytest.mark.parametrize("words", [5, EXACT + 100])
def test_a_picture_without_keypoints_has_no_words(words):
    quantiser, nothing = Quantiser(book(words)), extract(np.full((48, 64, 3), 90, np.uint8))
    found = quantiser.compact(nothing, FRAME)
    assert len(found) == 0 and found.codes.shape == (0, 16)
    query = quantiser.query(nothing, FRAME)
    assert query.words.shape == (0, 5) and query.codes.shape == (0, 5, 16)
    assert len(query.aggregated().words) == 0


def test_a_codebook_of_other_features_is_refused():
    with pytest.raises(ValueError, match="got a codebook of 64 values; keypoints have 128"):
        Quantiser(Codebook(centroids=np.ones((4, 64), np.float32)))


def test_the_codebook_that_ships():
    shipped = shipped_codebook()
    assert (shipped.words, shipped.dimension) == (16_384, DIMENSION)
    assert is_for_keypoints(shipped) and not is_for_keypoints(book(3))
    assert shipped_codebook() is shipped, "it is read once"
    # Means of RootSIFT: no negative values, and within the unit sphere but for rounding.
    assert shipped.centroids.min() >= 0
    norms = np.linalg.norm(shipped.centroids, axis=1)
    assert norms.min() > 0.5 and norms.max() <= 1.001


async def test_the_extractor_finds_what_the_parts_find():
    quantiser, pixels = Quantiser(book(200)), cover(2)
    extractor = Extractor(quantiser, threads=2)
    try:
        indexed, asked = await extractor.of_picture(pixels), await extractor.of_query(pixels)
    finally:
        extractor.close()
    assert frame_of(pixels) == (400, 300) == indexed.frame
    wanted = quantiser.compact(extract(pixels), (400, 300))
    np.testing.assert_array_equal(indexed.words, wanted.words)
    np.testing.assert_array_equal(indexed.positions, wanted.positions)
    np.testing.assert_array_equal(asked.words, quantiser.query(extract(pixels, side=QUERY_SIDE), (400, 300)).words)
