"""The bytes of keypoints, and their words and bits as ASMK* has them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.keypoints.compact import (
    BITS,
    BYTES,
    STRONGEST,
    CompactKeypoints,
    aggregated,
    pack_keypoints,
    unpack_keypoints,
)
from landseer.ensemble.keypoints.query_keypoints import ASKED, QueryKeypoints


def some(count, seed=0, *, words=65_536, side=2047.0):
    draws = np.random.default_rng(seed)
    return CompactKeypoints(
        words=draws.integers(0, words, count),
        codes=draws.integers(0, 256, (count, BITS // 8), dtype=np.uint8),
        positions=draws.uniform(0, side, (count, 2)).astype(np.float32),
        sizes=np.exp2(draws.uniform(0, 11, count)).astype(np.float32),
        angles=draws.uniform(0, 2 * np.pi, count).astype(np.float32),
        frame=(int(draws.integers(1, 2048)), int(draws.integers(1, 2048))),
    )


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_packing_keeps_all_but_rounding(count, seed):
    one = some(count, seed)
    data = pack_keypoints(one)
    assert len(data) == 6 + BYTES * count
    found = unpack_keypoints(data)
    assert len(found) == count and found.frame == one.frame
    assert found.words.dtype == np.int64 and found.codes.dtype == np.uint8
    assert found.positions.dtype == found.sizes.dtype == found.angles.dtype == np.float32
    assert found.codes.shape == (count, BITS // 8) and found.positions.shape == (count, 2)
    np.testing.assert_array_equal(found.words, one.words)
    np.testing.assert_array_equal(found.codes, one.codes)
    np.testing.assert_allclose(found.positions, one.positions, atol=1 / 64 + 1e-4)
    np.testing.assert_allclose(np.log2(found.sizes), np.log2(one.sizes), atol=1 / 32 + 1e-4)
    turns = (found.angles - one.angles + np.pi) % (2 * np.pi) - np.pi
    assert not count or np.abs(turns).max() <= np.pi / 256 + 1e-4
    # What was rounded once stays.
    assert pack_keypoints(found) == data


def test_a_thousand_take_24_kilobytes():
    assert len(pack_keypoints(some(1000))) == 24_006


def test_what_was_unpacked_is_a_copy():
    data = bytearray(pack_keypoints(some(3)))
    found = unpack_keypoints(memoryview(data))
    before = found.codes.copy(), found.words.copy()
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(found.codes, before[0])
    np.testing.assert_array_equal(found.words, before[1])
    found.codes[:] = 0


def test_values_beyond_the_range_are_clipped():
    one = dataclasses.replace(
        some(2),
        positions=np.array([[-0.4, 5000.0], [3.0, -9.0]], np.float32),
        sizes=np.array([0.2, 2e6], np.float32),
        angles=np.array([2 * np.pi, -0.001], np.float32),
    )
    found = unpack_keypoints(pack_keypoints(one))
    np.testing.assert_allclose(found.positions, [[0, 2**11], [3, 0]], atol=1 / 16)
    np.testing.assert_allclose(found.sizes, [1, 2 ** (255 / 16)], rtol=1e-5)
    np.testing.assert_allclose(found.angles, 0, atol=1e-6)


def test_a_word_that_two_bytes_cannot_hold_is_refused():
    one = dataclasses.replace(some(2), words=np.array([3, 65_536]))
    with pytest.raises(ValueError, match="got word 65536; expected at most 65535; use a smaller codebook"):
        pack_keypoints(one)


@settings(deadline=None)
@given(data=st.binary(max_size=80), cut=st.integers(1, 77))
def test_unpacking_other_bytes_is_a_value_error(data, cut):
    whole = pack_keypoints(some(3))
    for other in (data[:5], whole[:-cut], whole + b"x", b"\xff\xff\x01\x00\x01\x00" + data, b"\x00" * 6 + data + b"x"):
        with pytest.raises(ValueError, match="not keypoints"):
            unpack_keypoints(other)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 30), words=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_each_bit_is_that_of_the_majority_of_a_word(count, words, seed):
    one = some(count, seed, words=words)
    found = aggregated(one.words, one.codes)
    assert found.words.tolist() == sorted(set(one.words.tolist()))
    assert found.bits == BITS and found.codes.shape == (len(found.words), BITS // 8)
    bits = np.unpackbits(one.codes, axis=1)
    for word, code in zip(found.words, np.unpackbits(found.codes, axis=1), strict=True):
        votes = bits[one.words == word]
        np.testing.assert_array_equal(code, [2 * column.sum() > len(column) for column in votes.T])


def test_a_query_is_searched_by_the_nearest_words_of_each_keypoint():
    draws = np.random.default_rng(0)
    words = np.array([[1, 2, 3, 4], [2, 5, 1, 6]])
    codes = draws.integers(0, 256, (2, 4, BITS // 8), dtype=np.uint8)
    query = QueryKeypoints(keypoints=some(2), words=words, codes=codes)
    found = query.aggregated(multiple=2)
    assert found.words.tolist() == [1, 2, 5]
    np.testing.assert_array_equal(found.codes[0], codes[0, 0])
    np.testing.assert_array_equal(found.codes[1], codes[0, 1] & codes[1, 0])  # a tie is 0
    np.testing.assert_array_equal(found.codes[2], codes[1, 1])
    assert query.aggregated().words.tolist() == [1, 2, 3, 5]


def test_only_the_strongest_keypoints_are_searched_by():
    words = np.arange(STRONGEST + 1)
    query = QueryKeypoints(
        keypoints=some(len(words)),
        words=words[:, None],
        codes=np.zeros((len(words), 1, BITS // 8), np.uint8),
    )
    assert query.aggregated().words.tolist() == list(range(ASKED))
    assert dataclasses.replace(query.keypoints, words=words).searched().words.tolist() == list(range(STRONGEST))


def test_the_table_of_a_query_has_all_its_words_in_order():
    words = np.array([[7, 2], [2, 9], [0, 7]])
    codes = np.arange(6, dtype=np.uint8).reshape(3, 2, 1).repeat(BITS // 8, axis=2)
    table = QueryKeypoints(keypoints=some(3), words=words, codes=codes).table
    assert np.flatnonzero(table.places).tolist() == [0, 2, 7, 9]
    begins, ends = table.begins[table.places], table.begins[table.places + 1]
    assert begins[[0, 2, 7, 9]].tolist() == [0, 1, 3, 5] and ends[[0, 2, 7, 9]].tolist() == [1, 3, 5, 6]
    assert (begins == ends).sum() == len(table.places) - 4
    assert table.rows.tolist() == [2, 0, 1, 0, 2, 1]
    np.testing.assert_array_equal(table.codes.view(np.uint8), codes.reshape(6, -1)[[4, 1, 2, 0, 5, 3]])


def test_an_indexed_picture_as_a_query_has_one_word_each():
    one = some(5)
    query = QueryKeypoints.of_indexed(one)
    assert query.words.shape == (5, 1) and query.codes.shape == (5, 1, BITS // 8)
    np.testing.assert_array_equal(query.aggregated().words, aggregated(one.words, one.codes).words)
    np.testing.assert_array_equal(query.aggregated().codes, aggregated(one.words, one.codes).codes)
