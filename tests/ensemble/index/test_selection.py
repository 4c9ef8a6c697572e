"""A selection of keys."""

import numpy as np

from landseer.ensemble.index.selection import Selection


def test_selection_has_its_keys_and_no_others() -> None:
    """Keys outside of the bitmap, and below 0, are not allowed."""
    selection = Selection.of(np.array([7, 2], np.int64))
    assert selection.has(np.array([-1, 0, 2, 6, 7, 8, 1000], np.int64)).tolist() == [0, 0, 1, 0, 1, 0, 0]


def test_an_empty_selection_has_none() -> None:
    """No keys give a selection that allows nothing."""
    assert not Selection.of(np.empty(0, np.int64)).has(np.array([0, 1], np.int64)).any()
