"""RootSIFT keypoints of drawn pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from prints import cover

from landseer.ensemble.keypoints.rootsift import DIMENSION, MOST, QUERY_SIDE, extract, root_sift

SPOTS = np.array([[0.203, 0.254], [0.497, 0.303], [0.793, 0.704], [0.302, 0.751], [0.617, 0.553]])
"""Places of spots, as shares of width and height: none in the middle between pixels that are then equally dark."""


def spotted(width, height):
    """Return dark spots on white, and their places in pixels."""
    places, across, down = SPOTS * (width, height), np.arange(width), np.arange(height)[:, None]
    pixels = np.full((height, width), 230.0)
    for x, y in places:
        pixels -= 180 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * (width / 50) ** 2))
    return np.repeat(pixels.round().astype(np.uint8)[:, :, None], 3, axis=2), places


def test_a_picture_has_the_same_keypoints_each_time():
    one, other = extract(cover(1)), extract(cover(1).copy())
    assert 200 < len(one) <= MOST
    for name in ("descriptors", "positions", "sizes", "angles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == np.float32


def test_the_strongest_come_first():
    everything = extract(cover(2))
    for most in (1, 50, 150):
        some = extract(cover(2), most=most)
        assert len(some) == most
        np.testing.assert_array_equal(some.positions, everything.positions[:most])
    # Of print and its faint copy beside it, the print.
    clear, faint = cover(3, (200, 300)), 200 + (cover(3, (200, 300)).astype(float) - 200) * 0.3
    both = np.concatenate([clear, faint.round().astype(np.uint8)], axis=1)
    assert (extract(both, most=60).positions[:, 0] < 200).mean() > 0.9


def test_descriptors_have_unit_norm_and_no_negative_values():
    found = extract(cover(1))
    assert found.descriptors.shape == (len(found), DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert found.descriptors.min() >= 0
    assert found.sizes.min() > 0 and found.angles.min() >= 0 and found.angles.max() <= np.float32(2 * np.pi)


def test_root_sift_is_the_square_root_of_the_share():
    raw = np.random.default_rng(0).integers(0, 256, (20, DIMENSION)).astype(np.float32)
    wanted = np.sqrt(raw / np.abs(raw).sum(axis=1, keepdims=True))
    before = raw.copy()
    np.testing.assert_allclose(root_sift(raw), wanted, atol=1e-6)
    np.testing.assert_array_equal(raw, before)
    assert not root_sift(np.zeros((2, DIMENSION))).any()


@pytest.mark.parametrize("shape", [(300, 400), (33, 64), (1, 1), (1, 500), (900, 2)])
def test_a_blank_picture_has_none(shape):
    found = extract(np.full((*shape, 3), 200, np.uint8))
    assert len(found) == 0
    assert found.descriptors.shape == (0, DIMENSION) and found.positions.shape == (0, 2)
    assert found.sizes.shape == found.angles.shape == (0,)


@pytest.mark.parametrize(("width", "height"), [(64, 33), (33, 64), (40, 40)])
def test_a_tiny_picture_has_some_inside(width, height):
    found = extract(cv2.resize(cover(4), (width, height), interpolation=cv2.INTER_AREA))
    assert len(found)
    assert (found.positions >= -0.5).all() and (found.positions <= np.array([width, height]) - 0.5).all()


@pytest.mark.parametrize(("width", "height"), [(400, 300), (640, 480), (480, 640), (1000, 300)])
def test_positions_are_those_in_the_picture_given_whatever_its_size(width, height):
    pixels, places = spotted(width, height)
    found = extract(pixels)
    apart = np.linalg.norm(found.positions[:, None] - places[None], axis=2)
    assert (apart.min(axis=0) < 0.3).all()
    # Sizes grow with the spots. OpenCV's are 1.78 times their standard deviation.
    np.testing.assert_allclose(found.sizes[apart.argmin(axis=0)] / (width / 50), 1.78, rtol=0.05)


def test_a_turned_picture_has_turned_keypoints():
    one, other = extract(cover(5)), extract(np.rot90(cover(5), -1).copy())
    turned = np.stack([cover(5).shape[0] - 1 - one.positions[:, 1], one.positions[:, 0]], axis=1)
    apart = np.linalg.norm(turned[:, None] - other.positions[None], axis=2)
    nearest = apart.argmin(axis=1)
    # Several orientations may share a place: that with the most alike descriptor counts.
    alike = one.descriptors @ other.descriptors.T * (apart < 1.0)
    best = alike.argmax(axis=1)
    assert (apart[np.arange(len(one)), nearest] < 1.0).mean() > 0.9
    assert (alike.max(axis=1) > 0.9).mean() > 0.85
    turns = (other.angles[best] - one.angles - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    assert (np.abs(turns) < 0.1).mean() > 0.85


def test_a_query_has_finer_keypoints_in_the_same_places():
    pixels = cover(1, (480, 640))
    indexed, query = extract(pixels), extract(pixels, side=QUERY_SIDE)
    assert np.median(query.sizes) < np.median(indexed.sizes)
    apart = np.linalg.norm(query.positions[:100, None] - indexed.positions[None], axis=2).min(axis=1)
    assert (apart < 3).mean() > 0.5
