"""Patches of deep local features, and their bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.inference.contracts import PATCH_BITS
from landseer.ensemble.keypoints.patches import (
    BYTES,
    STRIDE,
    Patches,
    pack_patches,
    patches_of,
    unpack_patches,
)

PATCH_COUNT = 388
"""Patches of a picture, as models are exported."""


def some(count, seed=0, *, side=2047.0):
    draws = np.random.default_rng(seed)
    return Patches(
        codes=draws.integers(0, 256, (count, PATCH_BITS // 8), dtype=np.uint8),
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
    assert found.codes.dtype == np.uint8 and found.codes.shape == (count, PATCH_BITS // 8)
    assert found.positions.dtype == found.sizes.dtype == np.float32
    assert found.positions.shape == (count, 2)
    np.testing.assert_array_equal(found.codes, one.codes)
    np.testing.assert_allclose(found.positions, one.positions, atol=1 / 64 + 1e-4)
    np.testing.assert_allclose(np.log2(found.sizes), np.log2(one.sizes), atol=1 / 32 + 1e-4)
    # What was rounded once stays.
    assert pack_patches(found) == data


def test_all_of_a_picture_fit_two_pages_with_their_header():
    # LMDB keeps a value that overflows on pages of 4,096 bytes, the first of which begins with 16 of its own.
    assert len(pack_patches(some(PATCH_COUNT))) <= 2 * 4096 - 16


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


def test_they_are_what_the_models_return_without_padding():
    draws = np.random.default_rng(0)
    tensors = {
        "patch_codes": draws.integers(0, 256, (20, PATCH_BITS // 8), dtype=np.uint8),
        "patch_count": np.array([12], np.int32),
        "patch_positions": draws.uniform(0, 400, (20, 2)).astype(np.float32),
        "patch_scales": draws.choice([0.5, 1.0, 2.0], 20).astype(np.float32),
    }
    found = patches_of(tensors, frame=(400, 300))
    assert len(found) == 12 and found.frame == (400, 300)
    np.testing.assert_array_equal(found.codes, tensors["patch_codes"][:12])
    np.testing.assert_array_equal(found.positions, tensors["patch_positions"][:12])
    np.testing.assert_allclose(found.sizes, STRIDE / tensors["patch_scales"][:12])


def test_a_picture_may_have_none():
    tensors = {
        "patch_codes": np.zeros((20, PATCH_BITS // 8), np.uint8),
        "patch_count": np.array([0], np.int32),
        "patch_positions": np.zeros((20, 2), np.float32),
        "patch_scales": np.zeros(20, np.float32),
    }
    found = patches_of(tensors, frame=(40, 30))
    assert len(found) == len(unpack_patches(pack_patches(found))) == 0
