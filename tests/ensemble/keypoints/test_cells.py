"""The nearest centroids by cells, against comparisons one by one."""

from __future__ import annotations

import numpy as np
import pytest

from landseer.ensemble.keypoints.cells import LANES, NONE, Blocks, Cells

D = 12


def drawn(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)


def apart(descriptors, centroids):
    return np.linalg.norm(descriptors[:, None].astype(np.float64) - centroids[None], axis=2)


@pytest.mark.parametrize("words", [1, 5, LANES, LANES + 1, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 31])
def test_one_cell_is_compared_whole(words, count):
    centroids, descriptors = drawn(words), drawn(count, 1)
    many = min(words, 5)
    found = Cells(centroids, cells=1, probed=8).search(descriptors, many)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, apart(descriptors, centroids).argsort(axis=1)[:, :many])


def test_all_cells_together_hold_everything_once():
    centroids, descriptors = drawn(200), drawn(40, 1)
    found = Cells(centroids, cells=7, probed=7).search(descriptors, 200)
    np.testing.assert_array_equal(found, apart(descriptors, centroids).argsort(axis=1))


def test_the_nearest_of_the_nearest_cells_are_found():
    centroids, descriptors = drawn(200), drawn(40, 1)
    cells = Cells(centroids, cells=9, probed=2)
    blocks = cells._centroids
    there = [blocks.rows[begin:end] for begin, end in zip(blocks.begins[:-1], blocks.begins[1:], strict=True)]
    there = [rows[rows != NONE] for rows in there]
    middles = cells._middles.values.reshape(D, -1).T[:9]
    found = cells.search(descriptors, 3)
    for row, near in enumerate(apart(descriptors, middles).argsort(axis=1)[:, :2]):
        known = np.sort(np.concatenate([there[cell] for cell in near]))
        wanted = known[apart(descriptors[row : row + 1], centroids[known])[0].argsort()[:3]]
        np.testing.assert_array_equal(found[row], wanted)
    # Most are the nearest of all.
    assert (found[:, 0] == apart(descriptors, centroids).argmin(axis=1)).mean() > 0.5


def test_what_the_cells_lack_is_none():
    """Two clusters far apart: the cell that is looked into holds 4 of the 8 centroids."""
    centroids = np.concatenate([drawn(4) * 0.01, drawn(4, 1) * 0.01 + 50]).astype(np.float32)
    found = Cells(centroids, cells=2, probed=1).search(drawn(3, 2) * np.float32(0.01), 6)
    assert set(found[0, :4]) == {0, 1, 2, 3}
    assert (found[:, 4:] == NONE).all()


def test_blocks_hold_each_centroid_in_its_cell():
    centroids, cells = drawn(50), np.random.default_rng(3).integers(0, 4, 50)
    cells[cells == 2] = 1
    blocks = Blocks.of(centroids, cells, 4)
    assert blocks.begins[2] == blocks.begins[3] and not (blocks.begins % LANES).any()
    for cell in range(4):
        begin, end = blocks.begins[cell : cell + 2]
        rows = blocks.rows[begin:end]
        np.testing.assert_array_equal(rows[rows != NONE], np.flatnonzero(cells == cell))
        values = blocks.values[begin * D : end * D].reshape(D, -1)
        np.testing.assert_array_equal(values[:, rows != NONE].T, centroids[rows[rows != NONE]])
        np.testing.assert_allclose(
            blocks.halves[begin:end][rows != NONE], 0.5 * (centroids[cells == cell] ** 2).sum(axis=1), rtol=1e-6
        )
        assert np.isinf(blocks.halves[begin:end][rows == NONE]).all()
