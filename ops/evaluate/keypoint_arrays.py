"""Keypoints and patches of a picture as arrays of the cache: the bytes that a store keeps, and the words of a query."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.contracts import PATCH_OUTPUTS
from landseer.ensemble.keypoints.compact import pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.extractor import frame_of, query_keypoints
from landseer.ensemble.keypoints.patches import Patches, pack_patches, patches_of, unpack_patches
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.pictures.pictures import Prepared

KEYPOINTS, PATCHES = "keypoints", "patches"
"""Names in the cache, bytes each."""
QUERY_KEYPOINTS, QUERY_WORDS, QUERY_CODES = "query_keypoints", "query_words", "query_codes"
"""Names in the cache: bytes, the words of a query [n, M] and their bits [n, M, 16]."""
OF_QUERY = (QUERY_KEYPOINTS, QUERY_WORDS, QUERY_CODES)
"""What makes up the keypoints of a query, which is looked at more finely than a picture to index."""
OUTPUTS: Mapping[str, tuple[str, ...]] = {PATCHES: PATCH_OUTPUTS, **dict.fromkeys((KEYPOINTS, *OF_QUERY), ())}
"""Which outputs of `describe_full` each array is made of: keypoints need only pixels."""


def keypoint_arrays(
    names: Collection[str], tensors: Mapping[str, NDArray[Any]], prepared: Prepared
) -> dict[str, NDArray[Any]]:
    """Return those of the arrays that are named. tensors: `PATCH_OUTPUTS` of the picture, if patches are."""
    found = _of_query(prepared) if set(OF_QUERY) & set(names) else {}
    if KEYPOINTS in names:
        frame = frame_of(prepared.pixels)
        found[KEYPOINTS] = _bytes(pack_keypoints(quantiser().compact(extract(prepared.pixels), frame)))
    if PATCHES in names:
        found[PATCHES] = _bytes(pack_patches(patches_of(tensors, frame=frame_of(prepared.pixels))))
    return {name: array for name, array in found.items() if name in names}


def query_of(keypoints: NDArray[np.uint8], words: NDArray[np.uint16], codes: NDArray[np.uint8]) -> QueryKeypoints:
    """Return the keypoints of a query from its arrays."""
    return QueryKeypoints(keypoints=unpack_keypoints(keypoints.data), words=words.astype(np.int64), codes=codes)


def stored_patches(patches: NDArray[np.uint8] | None) -> Patches | None:
    """Return patches from their bytes; None stays None."""
    return None if patches is None else unpack_patches(patches.data)


@lru_cache(maxsize=1)
def quantiser() -> Quantiser:
    """Return the words of the codebook that ships, which a server has unless it is told otherwise."""
    return Quantiser(shipped_codebook())


def _of_query(prepared: Prepared) -> dict[str, NDArray[Any]]:
    found = query_keypoints(quantiser(), prepared.pixels)
    packed = _bytes(pack_keypoints(found.keypoints))
    return {QUERY_KEYPOINTS: packed, QUERY_WORDS: found.words.astype(np.uint16), QUERY_CODES: found.codes}


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
