"""One affine map of patches: found where there is one, and none that no camera makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_spatial import plain_fit_upright

from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.matching import Matches
from landseer.ensemble.verify.upright import FINE, fit_upright


def patches(positions, sizes):
    count = len(positions)
    return Patches(
        codes=np.zeros((count, 16), np.uint8),
        positions=np.asarray(positions, np.float32),
        sizes=np.broadcast_to(np.asarray(sizes, np.float32), count).copy(),
        frame=(640, 480),
    )


def pairs(count):
    rows = np.arange(count)
    return Matches(query=rows, candidate=rows, distances=np.zeros(count, np.int64))


def mapped(positions, linear, shift):
    return positions @ np.asarray(linear, float).T + np.asarray(shift, float)


def scattered(count, seed=0):
    return np.random.default_rng(seed).uniform(20, 460, (count, 2))


@settings(deadline=None, max_examples=60)
@given(
    scale=st.floats(0.4, 1.4),
    stretch=st.floats(0.92, 1.09),
    shear=st.floats(-0.08, 0.08),
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
    seed=st.integers(0, 99),
)
def test_the_map_of_most_matches_is_found_among_chance(scale, stretch, shear, x, y, seed):
    draws = np.random.default_rng(seed)
    here = scattered(60, seed)
    linear = scale * np.array([[stretch, shear], [0.0, 1.0]])
    there = mapped(here, linear, (x, y))
    there[:20] = draws.uniform(0, 640, (20, 2))
    found = fit_upright(patches(here, 16), patches(there, 16 * scale), pairs(60))
    assert found.inliers >= 30 and found.most == 60 and found.map is not None
    points = mapped(here[20:], found.map[:2, :2], found.map[:2, 2])
    # What lies within the tolerance by chance moves the map a little.
    assert np.median(np.linalg.norm(points - there[20:], axis=1)) < FINE / 2


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 60), others=st.integers(0, 60), noise=st.floats(0, 12), seed=st.integers(0, 2**32 - 1))
def test_the_fit_is_that_of_plain_numpy(count, others, noise, seed):
    draws = np.random.default_rng(seed)
    here = scattered(count + others, seed)
    there = mapped(here, draws.normal(0, 0.1, (2, 2)) + np.eye(2), (30, -20)) + draws.normal(0, noise, here.shape)
    there[count:] = draws.uniform(0, 640, (others, 2))
    query, candidate = (patches(some, 16 * np.exp2(draws.integers(0, 3, len(here)) / 2)) for some in (here, there))
    found = fit_upright(query, candidate, pairs(len(here)))
    inliers, map = plain_fit_upright(query, candidate, pairs(len(here)))
    np.testing.assert_array_equal(found.matches.query, inliers.query)
    assert (found.map is None) == (map is None)
    if map is not None:
        np.testing.assert_allclose(found.map, map, rtol=1e-6, atol=1e-6)


def test_inliers_are_within_the_tolerance_and_of_a_like_scale():
    here = scattered(40)
    there = here + np.random.default_rng(1).normal(0, 4, here.shape)
    sizes = np.full(40, 16.0)
    sizes[:5] = 160.0
    found = fit_upright(patches(here, 16), patches(there, sizes), pairs(40))
    assert found.map is not None and not set(range(5)) & set(found.matches.query.tolist())
    kept = found.matches.query
    errors = np.linalg.norm(mapped(here[kept], found.map[:2, :2], found.map[:2, 2]) - there[kept], axis=1)
    assert errors.max() <= FINE and found.inliers >= 30


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_matches_have_no_map(count):
    here = scattered(count)
    found = fit_upright(patches(here, 16), patches(here, 16), pairs(count))
    assert (found.inliers, found.map, found.most) == (0, None, count)


def test_points_on_a_line_have_no_map():
    here = np.stack([np.arange(20) * 10.0, np.full(20, 50.0)], axis=1)
    assert fit_upright(patches(here, 16), patches(here, 16), pairs(20)).map is None


@pytest.mark.parametrize(
    ("linear", "why"),
    [([[-1, 0], [0, 1]], "mirrored"), ([[1, 0], [0, 0.01]], "collapsed"), ([[1, 0], [0, 0.15]], "flattened")],
)
def test_maps_that_no_camera_makes_are_rejected(linear, why):
    # In a corner, so that a scale and shift agrees with all of them at first.
    here = scattered(30) / 20
    found = fit_upright(patches(here, 16), patches(mapped(here, linear, (100, 100)), 16), pairs(30))
    assert (found.inliers, found.map) == (0, None), why


def test_chance_alone_finds_few():
    counts = []
    for seed in range(20):
        here, there = scattered(40, seed), scattered(40, seed + 1000)
        counts.append(fit_upright(patches(here, 16), patches(there, 16), pairs(40)).inliers)
    assert max(counts) < 12
