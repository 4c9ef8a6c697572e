"""float16 as float32."""

import numpy as np

from landseer.ensemble.store.widening import widened


def test_every_finite_value_is_exact():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 8)
    for halves in (finite, finite[::-1, ::2], finite[:0]):
        found = widened(halves)
        assert found.dtype == np.float32 and found.shape == halves.shape
        np.testing.assert_array_equal(found.view(np.uint32), halves.astype(np.float32).view(np.uint32))
