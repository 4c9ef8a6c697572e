"""Homographies that a camera makes, against plain numpy."""

from __future__ import annotations

import numpy as np
import plain_spatial
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prints import camera

from landseer.ensemble.verify.camera import plausible

CORNERS = np.array([[20.0, 30], [600, 30], [600, 450], [20, 450]])


@settings(max_examples=200, deadline=None)
@given(spread=st.floats(0, 2), tilt=st.floats(0, 0.004), seed=st.integers(0, 2**32 - 1))
def test_it_is_told_as_plain_numpy_tells(spread, tilt, seed):
    draws = np.random.default_rng(seed)
    map = np.eye(3)
    map[:2, :2] += draws.normal(0, spread, (2, 2))
    map[2, :2] = draws.normal(0, tilt, 2)
    assert plausible()(map, CORNERS) == plain_spatial.plausible(map, CORNERS)


@pytest.mark.parametrize(
    ("map", "likely"),
    [
        (np.eye(3), True),
        (camera(turn=15, tilt=0.5, zoom=0.8, size=(640, 480)), True),
        (np.diag([-1.0, 1, 1]), False),
        (np.diag([1.0, 0.01, 1]), False),
        (np.diag([30.0, 30, 1]), False),
        (np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]]), False),
    ],
    ids=["same", "tilted", "mirrored", "collapsed", "blown up", "behind the camera"],
)
def test_a_camera_does_not_mirror_collapse_or_look_behind(map, likely):
    assert plausible()(map, CORNERS) == likely
