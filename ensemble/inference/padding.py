"""Padding to a few shapes, so that requests of different sizes can share a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def bucket(count: int, sizes: Sequence[int], most: int) -> int:
    """Return the smallest of the ascending `sizes` that fits `count`, at most `most`, which must fit it."""
    return min([size for size in sizes if size >= count] + [most])


def padded(rows: NDArray[Scalar], slots: int) -> NDArray[Scalar]:
    """Append zero rows to [n, ...] until there are `slots`."""
    return np.concatenate([rows, np.zeros((slots - len(rows), *rows.shape[1:]), rows.dtype)])
