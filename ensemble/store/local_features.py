"""The local features of a picture, and their bytes in the store.

On disk: a little-endian header (D, the number of regions, the number of features n), the number of features of each
region, then for all features the position (uint16, in 1/32 pixel), the scale (fp16), and D values (int8, scaled so that
the largest is 127; normalising restores them without a stored factor). A feature of 128 values takes 134 bytes, 500
take 67,012.

What int8 loses is measured in docs/research/local-features.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOCAL_OUTPUTS = ("local_descriptors", "local_count", "local_positions", "local_scales")
"""The outputs of `describe_full` that make them up."""

_HEADER = struct.Struct("<HHI")
_COUNT, _HALF, _PLACE, _BYTE = np.dtype("<u4"), np.dtype("<f2"), np.dtype("<u2"), np.dtype("i1")
_STEPS = 127
_PARTS = 32
"""Positions are stored in this fraction of a pixel, which allows inputs of 2,047 px."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalFeatures:
    """Local features of a picture: of the whole picture, strongest first, then of each region.

    Positions are in pixels of the model's input: the resized picture, or the resized crop.
    """

    descriptors: NDArray[np.float32]
    """[n, D], unit norm."""
    positions: NDArray[np.float32]
    """[n, 2]: x, y."""
    scales: NDArray[np.float32]
    """[n]: the factor by which the input was resized for each."""
    counts: tuple[int, ...]
    """Number of features of the whole picture, then of each region."""

    def __post_init__(self) -> None:
        features = sum(self.counts)
        shapes = [np.shape(array) for array in (self.descriptors, self.positions, self.scales)]
        if not self.counts or len(shapes[0]) != 2 or shapes != [(features, shapes[0][1]), (features, 2), (features,)]:
            raise ValueError(f"got local features of shapes {shapes}; expected one row of each for {features} features")

    @property
    def whole(self) -> LocalFeatures:
        """The features of the whole picture only."""
        count = self.counts[0]
        return LocalFeatures(
            descriptors=self.descriptors[:count],
            positions=self.positions[:count],
            scales=self.scales[:count],
            counts=(count,),
        )


def of_tensors(tensors: Mapping[str, NDArray[Any]]) -> LocalFeatures:
    """Return the local features of a picture from the `LOCAL_OUTPUTS` of `describe_full`, without their batch axis."""
    count: int = tensors["local_count"].item()
    arrays = {name: tensors[f"local_{name}"][:count].astype(np.float32) for name in ("descriptors", "positions")}
    return LocalFeatures(**arrays, scales=tensors["local_scales"][:count].astype(np.float32), counts=(count,))


def joined(parts: Sequence[LocalFeatures]) -> LocalFeatures:
    """Join the local features of the whole picture and of its regions, in that order."""
    names = ("descriptors", "positions", "scales")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return LocalFeatures(**arrays, counts=tuple(sum(part.counts) for part in parts))


def pack_features(features: LocalFeatures) -> bytes:
    """Return the bytes for the store. ValueError for values that are not finite."""
    if not (np.isfinite(features.descriptors).all() and np.isfinite(features.positions).all()):
        raise ValueError("got local features with values that are not finite; describe the picture again")
    count, dimension = features.descriptors.shape
    largest = np.abs(features.descriptors).max(axis=1, keepdims=True, initial=0.0)
    values = features.descriptors * (_STEPS / np.maximum(largest, 1e-6))
    arrays = (
        np.array(features.counts, _COUNT),
        np.clip(np.rint(features.positions * _PARTS), 0, 2**16 - 1).astype(_PLACE),
        features.scales.astype(_HALF),
        np.rint(values).astype(_BYTE),
    )
    header = _HEADER.pack(dimension, len(features.counts), count)
    return b"".join((header, *(np.ascontiguousarray(array).tobytes() for array in arrays)))


def unpack_features(data: bytes | memoryview) -> LocalFeatures:
    """Return what `pack_features` packed, as copies, descriptors at unit norm. ValueError for other bytes."""
    try:
        dimension, regions, count = _HEADER.unpack_from(data)
    except struct.error as error:
        raise ValueError(f"not local features: {error}") from error
    shapes = ((_COUNT, (regions,)), (_PLACE, (count, 2)), (_HALF, (count,)), (_BYTE, (count, dimension)))
    expected = _HEADER.size + sum(kind.itemsize * math.prod(shape) for kind, shape in shapes)
    if len(data) != expected:
        raise ValueError(f"not local features: {len(data)} bytes instead of {expected}")
    place, arrays = _HEADER.size, []
    for kind, shape in shapes:
        arrays.append(np.frombuffer(data, kind, math.prod(shape), place).reshape(shape))
        place += arrays[-1].nbytes
    counts, positions, scales, values = arrays
    return LocalFeatures(
        descriptors=_unit(values.astype(np.float32)),
        positions=positions.astype(np.float32) / _PARTS,
        scales=scales.astype(np.float32),
        counts=tuple(counts.tolist()),
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.asarray(rows / np.maximum(norms, 1e-6)[:, None], np.float32)
