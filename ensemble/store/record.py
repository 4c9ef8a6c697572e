"""A picture as the store keeps it, and its bytes.

On disk a record is a little-endian uint32, that many bytes of JSON, then the arrays `query_vector`, `boxes` and
`feature_map`, whose lengths are in the JSON. Descriptor, clusters, thumbnail and local features are stored separately
(see `store`). Unlike a pickle, nothing that is read back is executed.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.store.local_features import LocalFeatures

MAX_ID_BYTES = 500
MAX_METADATA_BYTES = 64 * 2**10

_LENGTH = struct.Struct("<I")
HALF, _SINGLE, _BYTE = np.dtype("<f2"), np.dtype("<f4"), np.dtype("u1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Everything stored about an indexed picture."""

    id: str
    """1 to 500 bytes of UTF-8 without control characters."""
    metadata: Mapping[str, str]
    """The caller's, at most 64 KiB of UTF-8 in total."""
    width: int
    """Of the picture after EXIF rotation, pixels."""
    height: int
    descriptor: npt.NDArray[np.float16]
    """[D], unit norm."""
    query_vector: npt.NDArray[np.float16]
    """[P], unit norm: its co-attention vector when it is used as a query."""
    clusters: npt.NDArray[np.float16]
    """[k <= K, P], rows of unit norm."""
    boxes: npt.NDArray[np.float32]
    """[m, 5]: x, y, width, height in pixels of the picture, score."""
    feature_map: npt.NDArray[np.uint8]
    """[n <= N, 4]: x and y of each local feature in 1/256 of the picture, its cluster, the index of its scale."""
    model_version: str
    indexed_at: float
    """Unix seconds."""
    thumbnail: bytes = b""
    """A small JPEG, or empty."""
    locals: LocalFeatures | None = None
    """Written with the record; None for none. Read by `Store.locals`, not with the record."""
    words: Binary | None = None
    """Visual words of `locals`, written with the record; read by `Store.words`."""
    keypoints: CompactKeypoints | None = None
    """Written with the record; read by `Store.keypoints`."""
    patches: Patches | None = None
    """Written with the record; read by `Store.patches`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A record with its key."""

    key: int
    """Sequence number of the change that wrote the record: unique, increasing, and its id in every index."""
    record: Record


@dataclass(frozen=True, kw_only=True)
class StoreChange:
    """The result of a write."""

    key: int
    """Its sequence number; the record's key, unless the change was a deletion."""
    replaced_key: int | None
    """Key of the replaced or deleted record; None if there was none."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a store's augmented vectors were made."""

    method: str
    """As given to `landseer augment --method`, such as alphaqe:10:3."""
    network: str = ""
    """SHA-256 of the network that weighted the neighbours; empty without one."""
    sequence: int
    """Of the store's last change at that time."""
    pictures: int
    """Number of pictures at that time."""


@dataclass(frozen=True, kw_only=True)
class StoreStats:
    """Figures of a store, from one snapshot."""

    pictures: int
    sequence: int
    """Number of changes so far."""
    used_bytes: int
    """Bytes of pages with data; falls when pictures are deleted. New pictures are rejected slightly below the limit."""
    limit_bytes: int
    last_change: float | None
    """Unix seconds; None for a new store."""
    file_bytes: int = 0
    """Length of the data file; it never shrinks, but free pages are reused."""
    augmentation: Augmentation | None = None
    """How the augmented vectors were made; None if there are none."""
    augmented: int = 0
    """Pictures with an augmented vector."""
    locals: int = 0
    """Pictures with local features."""
    locals_bytes: int = 0
    """Bytes of their pages; part of `used_bytes`."""
    keypoints: int = 0
    """Pictures with keypoints."""
    keypoints_bytes: int = 0
    """Bytes of their pages; part of `used_bytes`."""


def check_id(id: str) -> None:
    """Raise InvalidInput unless id is 1 to 500 bytes of UTF-8 without control characters."""
    size = len(_utf8("id", id))
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidInput("id", f"got {size} bytes; expected 1 to {MAX_ID_BYTES} bytes of UTF-8")
    if any(unicodedata.category(character) == "Cc" for character in id):
        raise InvalidInput("id", f"got {id!r}; expected no control characters, such as tabs or line breaks")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidInput if keys and values take more than 64 KiB of UTF-8 in total."""
    size = sum(len(_utf8("metadata", key)) + len(_utf8("metadata", value)) for key, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(
            "metadata", f"got {size} bytes; expected at most {MAX_METADATA_BYTES} for keys and values together"
        )


def check_record(record: Record, *, clusters: tuple[int, int]) -> None:
    """Raise InvalidInput for an invalid id or metadata, ValueError for invalid arrays.

    clusters: K, most clusters of a picture, and P, their size.
    """
    check_id(record.id)
    check_metadata(record.metadata)
    _check_array("descriptor", record.descriptor, HALF, (None,))
    _check_array("query_vector", record.query_vector, HALF, (clusters[1],))
    _check_array("clusters", record.clusters, HALF, (None, clusters[1]))
    _check_array("boxes", record.boxes, _SINGLE, (None, 5))
    _check_array("feature_map", record.feature_map, _BYTE, (None, 4))
    if len(record.clusters) > clusters[0]:
        raise ValueError(f"got {len(record.clusters)} clusters for {record.id!r}; expected at most {clusters[0]}")
    if not np.isfinite(record.descriptor).all():
        raise ValueError(
            f"got a descriptor for {record.id!r} with values that are not finite; describe the picture again"
        )


def encode(record: Record) -> bytes:
    """Return the bytes of a record, without descriptor, clusters, thumbnail and local features."""
    names = ("id", "width", "height", "model_version", "indexed_at")
    header: dict[str, Any] = {name: getattr(record, name) for name in names}
    header |= {"metadata": dict(record.metadata), "query": len(record.query_vector)}
    header |= {"boxes": len(record.boxes), "features": len(record.feature_map)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    arrays = (to_bytes(array) for array in (record.query_vector, record.boxes, record.feature_map))
    return b"".join((_LENGTH.pack(len(text)), text, *arrays))


def decode(
    data: bytes | memoryview,
    *,
    descriptor: npt.NDArray[np.float16],
    clusters: npt.NDArray[np.float16],
    thumbnail: bytes,
    keypoints: CompactKeypoints | None = None,
) -> Record:
    """Reassemble a record. ValueError for data that `encode` did not write."""
    data = bytes(data)
    try:
        (length,) = _LENGTH.unpack_from(data)
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        if not isinstance(header, dict):
            raise ValueError(f"its header is {type(header).__name__}")
        query, boxes, features = (header.pop(name) for name in ("query", "boxes", "features"))
        start = _LENGTH.size + length
        middle = start + HALF.itemsize * query
        after = middle + 5 * _SINGLE.itemsize * boxes
        if len(data) != after + 4 * features:
            raise ValueError(f"got {len(data)} bytes; expected {after + 4 * features}")
        return Record(
            **header,
            descriptor=descriptor,
            query_vector=np.frombuffer(data[start:middle], HALF),
            clusters=clusters,
            boxes=np.frombuffer(data[middle:after], _SINGLE).reshape(boxes, 5),
            feature_map=np.frombuffer(data[after:], _BYTE).reshape(features, 4),
            thumbnail=thumbnail,
            keypoints=keypoints,
        )
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a record: {error}") from error


def metadata_of(data: bytes | memoryview) -> dict[str, str]:
    """Return the metadata in the bytes of a record, without reading the rest. ValueError as from `decode`."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        metadata: dict[str, str] = json.loads(bytes(data[_LENGTH.size : _LENGTH.size + length]))["metadata"]
        return metadata
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a record: {error}") from error


def to_bytes(array: npt.NDArray[Any]) -> bytes:
    """Return the elements of an array, little-endian, in C order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def halves(data: bytes | memoryview) -> npt.NDArray[np.float16]:
    """Return the float16 array that `to_bytes` wrote, flat, as a copy."""
    return np.frombuffer(data, HALF).astype(np.float16)


def pack_key(number: int) -> bytes:
    """Return a key for the store's databases: eight bytes that sort like the numbers."""
    return int(number).to_bytes(8, "big")


def unpack_key(key: bytes | memoryview) -> int:
    """Return the number that `pack_key` packed."""
    return int.from_bytes(key, "big")


def _utf8(field: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, f"{text!r} is not Unicode text: {error.reason}; send valid UTF-8") from error


def _check_array(name: str, array: npt.NDArray[Any], dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        expected = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected {dtype} [{expected}]")
