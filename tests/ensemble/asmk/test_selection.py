from __future__ import annotations

import numpy as np
import pytest
from shared_files import reference

from landseer.ensemble.asmk.selection import attention, smoothed, strongest, weighted_spoc


def test_it_equals_how():
    known = reference("how_local.npz")
    maps = [known[f"feat{scale}"][0] for scale in range(3)]
    for scale, features in enumerate(maps):
        np.testing.assert_allclose(attention(features), known[f"att{scale}"], atol=1e-5)
        np.testing.assert_allclose(smoothed(features), known[f"smooth{scale}"][0], atol=1e-5)
    smooth, weights = [smoothed(features) for features in maps], [attention(features) for features in maps]
    weights = [weight / max(weight.max() for weight in weights) for weight in weights]
    got = strongest(smooth, weights, known["scales"], count=50)
    np.testing.assert_allclose(got.features, known["sel_desc"], atol=1e-5)
    np.testing.assert_allclose(got.attention, known["sel_att"], atol=1e-5)
    np.testing.assert_array_equal(got.positions, known["sel_xy"])
    # Theirs are halves.
    np.testing.assert_array_equal(got.scales.astype(np.float16), known["sel_scale"])
    np.testing.assert_allclose(weighted_spoc(smooth, weights), known["weighted_spoc"][0], atol=1e-5)


def test_a_window_of_one_changes_nothing_and_a_wide_one_is_the_mean():
    features = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(smoothed(features, size=1), features, atol=1e-6)
    everywhere = np.broadcast_to(features.mean(axis=(1, 2), keepdims=True), features.shape)
    np.testing.assert_allclose(smoothed(features, size=9), everywhere, atol=1e-6)
    with pytest.raises(ValueError, match="window of 2"):
        smoothed(features, size=2)


def test_of_equal_ones_the_earlier_and_never_more_than_there_are():
    maps = [np.ones((2, 1, 2), np.float32), np.ones((2, 1, 1), np.float32)]
    got = strongest(maps, [np.ones((1, 2)), np.ones((1, 1))], [1.0, 0.5], count=10)
    assert got.positions.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert got.scales.tolist() == [1.0, 1.0, 0.5]
