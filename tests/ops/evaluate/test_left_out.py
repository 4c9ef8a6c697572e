from __future__ import annotations

import numpy as np
import pytest

from landseer.ensemble.search.expansion.augmentation import Augmenter, augmented
from landseer.ensemble.search.expansion.methods import AUGMENTATION_DEFAULTS
from landseer.ops.evaluate.left_out import LeftOut


def units(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def cosines(queries, neighbours):
    """The attention of a network that changes nothing."""
    return np.einsum("nd,nkd->nk", queries, neighbours)


@pytest.mark.parametrize("method", sorted(AUGMENTATION_DEFAULTS))
def test_a_database_without_one_of_its_vectors(method):
    vectors = np.concatenate([units(50, 16), np.repeat(units(1, 16, seed=2), 6, axis=0)])
    options = {"parameter": 0.5, "attention": cosines, "threads": 1}
    whole = augmented(vectors, method, 4, **options)
    left_out = LeftOut(Augmenter.over(vectors, method, 4, **options))
    for own in (0, 17, 52):
        rows, changed = left_out.rows(own)
        assert own not in rows and 0 < len(rows) < 56
        found = whole.copy()
        found[rows] = changed
        expected = augmented(np.delete(vectors, own, axis=0), method, 4, **options)
        np.testing.assert_allclose(np.delete(found, own, axis=0), expected, atol=1e-6)


def test_without_neighbours_no_vector_depends_on_another():
    rows, changed = LeftOut(Augmenter.over(units(5, 8), "aqe", 0, threads=1)).rows(2)
    assert len(rows) == 0 and changed.shape == (0, 8)
