"""Patches of deep local features, and their bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.keypoints.patches import (
    BITS,
    BYTES,
    MOST,
    STRIDE,
    Patches,
    pack_patches,
    patches_of,
    unpack_patches,
)


def some(count, seed=0, *, side=2047.0):
    draws = np.random.default_rng(seed)
    return Patches(
        codes=draws.integers(0, 256, (count, BITS // 8), dtype=np.uint8),
        positions=draws.uniform(0, side, (count, 2)).astype(np.float32),
        sizes=np.exp2(draws.uniform(0, 11, count)).astype(np.float32),
        frame=(int(draws.integers(1, 2048)), int(draws.integers(1, 2048))),
    )


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_packing_keeps_all_but_rounding(count, seed):
    one = some(count, seed)
    data = pack_patches(one)
    assert len(data) == 6 + BYTES * count
    found = unpack_patches(data)
    assert len(found) == count and found.frame == one.frame
    assert found.codes.dtype == np.uint8 and found.codes.shape == (count, BITS // 8)
    assert found.positions.dtype == found.sizes.dtype == found.angles.dtype == np.float32
    assert found.positions.shape == (count, 2) and found.angles.tolist() == [0] * count
    np.testing.assert_array_equal(found.codes, one.codes)
    np.testing.assert_allclose(found.positions, one.positions, atol=1 / 64 + 1e-4)
    np.testing.assert_allclose(np.log2(found.sizes), np.log2(one.sizes), atol=1 / 32 + 1e-4)
    # What was rounded once stays.
    assert pack_patches(found) == data


def test_all_of_a_picture_fit_two_pages_with_their_header():
    # LMDB keeps a value that overflows on pages of 4,096 bytes, the first of which begins with 16 of its own.
    assert len(pack_patches(some(MOST))) <= 2 * 4096 - 16


def test_what_was_unpacked_is_a_copy():
    data = bytearray(pack_patches(some(3)))
    found = unpack_patches(memoryview(data))
    before = found.codes.copy()
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(found.codes, before)
    found.codes[:] = 0


def test_values_beyond_the_range_are_clipped():
    one = dataclasses.replace(
        some(2),
        positions=np.array([[-0.4, 5000.0], [3.0, -9.0]], np.float32),
        sizes=np.array([0.2, 2e6], np.float32),
    )
    found = unpack_patches(pack_patches(one))
    np.testing.assert_allclose(found.positions, [[0, 2**11], [3, 0]], atol=1 / 16)
    np.testing.assert_allclose(found.sizes, [1, 2 ** (255 / 16)], rtol=1e-5)


@settings(deadline=None)
@given(data=st.binary(max_size=60), cut=st.integers(1, 6 + 3 * BYTES))
def test_unpacking_other_bytes_is_a_value_error(data, cut):
    whole = pack_patches(some(3))
    for other in (data[:5], whole[:-cut], whole + b"x", b"\xff\xff\x01\x00\x01\x00" + data, b"\x00" * 6 + data + b"x"):
        with pytest.raises(ValueError, match="not patches"):
            unpack_patches(other)


def test_the_strongest_features_of_a_picture_become_patches():
    draws = np.random.default_rng(0)
    descriptors = draws.standard_normal((MOST + 12, BITS)).astype(np.float32)
    positions, scales = draws.uniform(0, 400, (MOST + 12, 2)), draws.choice([0.5, 1.0, 2.0], MOST + 12)
    found = patches_of(descriptors, positions, scales, frame=(400, 300))
    assert len(found) == MOST and found.frame == (400, 300)
    np.testing.assert_array_equal(np.unpackbits(found.codes, axis=1), descriptors[:MOST] > 0)
    np.testing.assert_allclose(found.positions, positions[:MOST], rtol=1e-6)
    np.testing.assert_allclose(found.sizes, STRIDE / scales[:MOST], rtol=1e-6)
    assert found.positions.dtype == found.sizes.dtype == np.float32


def test_a_picture_may_have_few_or_no_features():
    for count in (0, 1):
        found = patches_of(np.ones((count, BITS)), np.zeros((count, 2)), np.ones(count), frame=(40, 30))
        assert len(found) == count
        assert len(unpack_patches(pack_patches(found))) == count


def test_descriptors_of_another_size_are_refused():
    with pytest.raises(ValueError, match="got local descriptors of 64 values; patches have 128"):
        patches_of(np.ones((2, 64)), np.zeros((2, 2)), np.ones(2), frame=(40, 30))
