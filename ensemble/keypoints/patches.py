"""Patches: features of the middle of the backbone, 21 bytes each, enough to verify.

Keypoints do not repeat on buildings seen from elsewhere, or where light has changed; patches do. The models return the
signs of their 128 values: two patches match if each is the other's nearest, and few bits differ. Positions are kept in
1/32 pixel, sizes in 1/16 octave.

On disk, little-endian: the number of patches (uint16), the width and height of the model's input (uint16), then for all
patches the position (2 x uint16), the size (uint8), the bits (16 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.bits import Packed
from landseer.ensemble.inference.contracts import PATCH_BITS

BYTES = 21
"""Of one patch."""
STRIDE = 16
"""Side of a patch at scale 1, pixels: the distance between two cells of the map that patches are from."""

_HEADER = struct.Struct("<HHH")
_PLACE, _BYTE = np.dtype("<u2"), np.dtype("u1")
_PARTS = 32
_STEPS = 16
_SIZES = np.exp2(np.arange(256, dtype=np.float32) / _STEPS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """The patches of a picture, strongest first."""

    codes: Packed
    """[n, 16]."""
    positions: NDArray[np.float32]
    """[n, 2]: x, y in pixels of the model's input."""
    sizes: NDArray[np.float32]
    """[n], pixels."""
    frame: tuple[int, int]
    """Width and height of the model's input, pixels."""

    def __len__(self) -> int:
        return len(self.codes)


def patches_of(tensors: Mapping[str, NDArray[Any]], *, frame: tuple[int, int]) -> Patches:
    """Return the patches of a picture from `PATCH_OUTPUTS` of the models, without their batch axis."""
    count: int = tensors["patch_count"].item()
    return Patches(
        codes=tensors["patch_codes"][:count].astype(np.uint8),
        positions=tensors["patch_positions"][:count].astype(np.float32),
        sizes=np.asarray(STRIDE / np.maximum(tensors["patch_scales"][:count], 1e-3), np.float32),
        frame=frame,
    )


def pack_patches(patches: Patches) -> bytes:
    """Return the bytes for the store."""
    sizes = np.log2(np.maximum(patches.sizes, 1.0)) * _STEPS
    arrays = (
        np.clip(np.rint(patches.positions * _PARTS), 0, 2**16 - 1).astype(_PLACE),
        np.clip(np.rint(sizes), 0, 255).astype(_BYTE),
        patches.codes,
    )
    header = _HEADER.pack(len(patches), *patches.frame)
    return b"".join((header, *(np.ascontiguousarray(array).tobytes() for array in arrays)))


def unpack_patches(data: bytes | memoryview) -> Patches:
    """Return what `pack_patches` packed, as copies. ValueError for other bytes."""
    try:
        count, *frame = _HEADER.unpack_from(data)
    except struct.error as error:
        raise ValueError(f"not patches: {error}") from error
    if len(data) != _HEADER.size + BYTES * count:
        raise ValueError(f"not patches: {len(data)} bytes instead of {_HEADER.size + BYTES * count} for {count}")
    places = np.frombuffer(data, _PLACE, 2 * count, _HEADER.size)
    octets = np.frombuffer(data, _BYTE, (BYTES - 4) * count, _HEADER.size + places.nbytes)
    return Patches(
        codes=octets[count:].reshape(count, PATCH_BITS // 8).copy(),
        positions=(places.astype(np.float32) / np.float32(_PARTS)).reshape(count, 2),
        sizes=_SIZES[octets[:count]],
        frame=(frame[0], frame[1]),
    )
