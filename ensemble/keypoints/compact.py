"""What the store keeps of a picture's keypoints: 24 bytes each, enough to search by words and to verify.

A descriptor is kept as its visual word and the signs of its residual, 128 bits (Hamming embedding, Jegou et al. 2008):
two keypoints match if they share a word and few bits differ. Positions are kept in 1/32 pixel, sizes in 1/16 octave,
orientations in 1/256 turn.

On disk, little-endian: the number of keypoints (uint16), the width and height of the model's input (uint16), then for
all keypoints the word (uint16), the position (2 x uint16), the size and the orientation (uint8), the bits (16 bytes).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import Packed

Words = NDArray[np.int64]

BITS = 128
BYTES = 24
"""Of one keypoint."""

STRONGEST = 500
"""Keypoints that a picture is found by. The weaker ones help to verify, but the words of all of them find less."""

_HEADER = struct.Struct("<HHH")
_WORD, _PLACE, _BYTE = np.dtype("<u2"), np.dtype("<u2"), np.dtype("u1")
_PARTS = 32
_STEPS = 16
_TURN = 256 / (2 * math.pi)
_SIZES = np.exp2(np.arange(256, dtype=np.float32) / _STEPS)
_ANGLES = np.arange(256, dtype=np.float32) / np.float32(_TURN)


@dataclass(frozen=True, kw_only=True, eq=False)
class CompactKeypoints:
    """The keypoints of a picture, strongest first."""

    words: Words
    """[n], of the codebook."""
    codes: Packed
    """[n, 16], the signs of the residuals."""
    positions: NDArray[np.float32]
    """[n, 2]: x, y in pixels of the model's input."""
    sizes: NDArray[np.float32]
    """[n], pixels."""
    angles: NDArray[np.float32]
    """[n], radians."""
    frame: tuple[int, int]
    """Width and height of the model's input, pixels."""

    def __len__(self) -> int:
        return len(self.words)

    def take(self, chosen: NDArray[np.bool_]) -> CompactKeypoints:
        """Return some of the keypoints, in their order. chosen: [n]."""
        return replace(
            self,
            words=self.words[chosen],
            codes=self.codes[chosen],
            positions=self.positions[chosen],
            sizes=self.sizes[chosen],
            angles=self.angles[chosen],
        )

    def searched(self) -> Binary:
        """Return the words to find the picture by, those of its strongest keypoints."""
        return aggregated(self.words[:STRONGEST], self.codes[:STRONGEST])


def pack_keypoints(keypoints: CompactKeypoints) -> bytes:
    """Return the bytes for the store. ValueError for words above 65,535."""
    if len(keypoints) and int(keypoints.words.max()) >= 2**16:
        raise ValueError(f"got word {keypoints.words.max()}; expected at most {2**16 - 1}; use a smaller codebook")
    sizes = np.log2(np.maximum(keypoints.sizes, 1.0)) * _STEPS
    arrays = (
        keypoints.words.astype(_WORD),
        np.clip(np.rint(keypoints.positions * _PARTS), 0, 2**16 - 1).astype(_PLACE),
        np.clip(np.rint(sizes), 0, 255).astype(_BYTE),
        (np.rint(keypoints.angles * _TURN).astype(np.int64) % 256).astype(_BYTE),
        keypoints.codes,
    )
    header = _HEADER.pack(len(keypoints), *keypoints.frame)
    return b"".join((header, *(np.ascontiguousarray(array).tobytes() for array in arrays)))


def unpack_keypoints(data: bytes | memoryview) -> CompactKeypoints:
    """Return what `pack_keypoints` packed, as copies. ValueError for other bytes.

    Searches read hundreds of pictures, so few steps and two tables: 1,000 keypoints take 15 us instead of 23.
    """
    try:
        count, *frame = _HEADER.unpack_from(data)
    except struct.error as error:
        raise ValueError(f"not keypoints: {error}") from error
    if len(data) != _HEADER.size + BYTES * count:
        raise ValueError(f"not keypoints: {len(data)} bytes instead of {_HEADER.size + BYTES * count} for {count}")
    shorts = np.frombuffer(data, _PLACE, 3 * count, _HEADER.size)
    octets = np.frombuffer(data, _BYTE, (BYTES - 6) * count, _HEADER.size + shorts.nbytes)
    return CompactKeypoints(
        words=shorts[:count].astype(np.int64),
        codes=octets[2 * count :].reshape(count, BITS // 8).copy(),
        positions=(shorts[count:].astype(np.float32) / np.float32(_PARTS)).reshape(count, 2),
        sizes=_SIZES[octets[:count]],
        angles=_ANGLES[octets[count : 2 * count]],
        frame=(frame[0], frame[1]),
    )


def aggregated(words: Words, codes: Packed) -> Binary:
    """Return ASMK* of keypoints from their words [n] and bits [n, 16] alone.

    Where several keypoints share a word, each bit is that of the majority, 0 in a tie. ASMK* takes the sign of the sum
    of the residuals, which the store does not keep.
    """
    order = np.argsort(words, kind="stable")
    distinct, first, counts = np.unique(words[order], return_index=True, return_counts=True)
    found, several = codes[order[first]], counts > 1
    if several.any():
        # Few words have several keypoints. To unpack only those takes 0.5 ms a picture instead of 1.4 when loading.
        those = np.repeat(several, counts)
        signs = 2 * np.unpackbits(codes[order[those]], axis=1).astype(np.int32) - 1
        begins = np.cumsum(counts[several]) - counts[several]
        found[several] = np.packbits(np.add.reduceat(signs, begins, axis=0) > 0, axis=1)
    return Binary(words=distinct.astype(np.int64), codes=found, bits=BITS)
