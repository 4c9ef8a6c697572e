from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.pictures.heatmap import CELLS, FeatureMap, coattention_heatmap, grid


def features(positions, scales, assignments, width=640, height=480):
    return FeatureMap.pack(
        np.array(positions, np.float32).reshape(-1, 2),
        np.array(scales, np.float32),
        np.array(assignments, np.int32),
        width=width,
        height=height,
    )


def paint(found, weights, width=640, height=480):
    return coattention_heatmap(found, np.array(weights, np.float32), width=width, height=height, long_side=640)


def test_packing_keeps_place_cluster_and_scale_and_drops_padding():
    packed = features([[0, 0], [320, 240], [639.9, 479.9], [0, 0]], [2**-1.5, 1.0, 2**0.5, 0.0], [3, 0, 9, -1])
    assert packed.packed.dtype == np.uint8
    assert packed.packed.shape == (3, 4)
    assert packed.clusters.tolist() == [3, 0, 9]
    assert packed.scales == pytest.approx([2**-1.5, 1.0, 2**0.5])
    assert packed.centres[1] == pytest.approx([0.5, 0.5], abs=1 / 256)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(640, 480, (18, 24)), (480, 640, (24, 18)), (5, 5000, (24, 1))]
)
def test_the_longer_side_has_all_cells(width, height, expected):
    assert grid(width, height) == expected


def test_the_map_peaks_where_the_heavy_cluster_lies():
    heat = paint(features([[80, 60], [560, 420]], [1.0, 1.0], [0, 1]), [0.9, 0.1])
    assert heat.shape == (18, 24)
    assert heat.dtype == np.float32
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row, column) in {(r, c) for r in (1, 2) for c in (2, 3)}
    assert heat.max() == 1.0
    assert heat[15, 20] == pytest.approx(1 / 9, rel=0.3)


def test_a_coarse_feature_paints_more_cells():
    fine, coarse = (paint(features([[320, 240]], [scale], [0]), [1.0]) for scale in (2**0.5, 2**-1.5))
    assert (coarse > 0.5).sum() > 2 * (fine > 0.5).sum() > 0


def test_nothing_to_paint_is_all_zeros():
    assert not paint(features([], [], []), [1.0]).any()
    assert not paint(features([[1, 1]], [1.0], [0]), [0.0, 1.0]).any()


def test_a_cluster_that_has_no_weight_is_ignored():
    assert not paint(features([[1, 1]], [1.0], [7]), [1.0, 1.0]).any()


FEATURE = st.tuples(
    st.floats(0, 640, width=32), st.floats(0, 480, width=32), st.integers(-1, 3), st.sampled_from([0.35, 1])
)


@given(
    st.lists(FEATURE, max_size=20),
    st.tuples(*[st.floats(0, 1, width=32)] * 4),
)
def test_values_lie_between_0_and_1(rows, weights):
    found = features([row[:2] for row in rows], [row[3] for row in rows], [row[2] for row in rows])
    heat = paint(found, weights)
    assert heat.shape == (CELLS * 3 // 4, CELLS)
    assert np.isfinite(heat).all()
    assert 0 <= heat.min() <= heat.max() <= 1
