from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble.inference.padding import bucket, padded


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_bucket_fits_the_count_and_the_limit(count, extra):
    most = count + extra - 1
    size = bucket(count, (8, 16, 64), most)
    assert count <= size <= most
    assert size in (8, 16, 64, most)


def test_padding_appends_zeros():
    rows = padded(np.ones((2, 3), np.float16), 4)
    assert rows.dtype == np.float16
    assert rows.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert padded(np.ones((2, 3)), 2).shape == (2, 3)
