"""Arrays in one file, mapped into memory instead of read: safetensors' format, which anything that knows it can open.

Eight bytes with the length of a JSON header, the header (name, type, shape and place of each array), the bytes of the
arrays. Nothing in it is executed. We write it ourselves since the server has no other need of the safetensors package.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U32": np.uint32, "U64": np.uint64}
"""Their names in the header."""
_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
_ALIGNMENT = 64
_LONGEST = 2**24
"""Of a header, in bytes: more is no header of ours."""


def write(path: Path, arrays: Mapping[str, Array], card: Mapping[str, Any]) -> None:
    """Write arrays and a card (JSON) to a file, whole or not at all. OSError if it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    # The widest first, so that each begins at a multiple of its own width.
    named = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    try:
        with draft.open("wb") as file:
            _fill(file, {name: np.ascontiguousarray(array) for name, array in named}, card)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def mapped(path: Path, *, verify: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file, read-only and read as they are touched, and its card.

    verify: read all of it now and compare its checksums. ValueError if it is not such a file, or is damaged; OSError.
    """
    try:
        return _mapped(path, verify)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no file of ours ({error}); make it again") from error


def _fill(file: BinaryIO, arrays: Mapping[str, Array], card: Mapping[str, Any]) -> None:
    sums = {name: zlib.crc32(_flat(array)) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": {"card": json.dumps(dict(card)), "crc32": json.dumps(sums)}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(_flat(array))


def _mapped(path: Path, verify: bool) -> tuple[dict[str, Array], dict[str, Any]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError(f"its header would be {length:,} bytes")
        header = json.loads(file.read(length))
    about, whole = header.pop("__metadata__"), np.asarray(np.memmap(path, np.uint8, "r", offset=8 + length))
    if len(whole) != max(place["data_offsets"][1] for place in header.values()):
        raise ValueError(f"its arrays are {len(whole):,} bytes, which is not what its header says")
    arrays = {name: _array(whole, place) for name, place in header.items()}
    if verify:
        _verify(arrays, json.loads(about["crc32"]))
    return arrays, json.loads(about["card"])


def _array(whole: Array, place: Mapping[str, Any]) -> Array:
    begin, end = place["data_offsets"]
    return whole[begin:end].view(TYPES[place["dtype"]]).reshape(place["shape"])


def _verify(arrays: Mapping[str, Array], sums: Mapping[str, int]) -> None:
    for name, array in arrays.items():
        if zlib.crc32(_flat(array)) != sums[name]:
            raise ValueError(f"the checksum of {name} does not fit")


def _flat(array: Array) -> memoryview:
    """Return the bytes of a contiguous array: [nbytes]. Flat first, for an empty one has no other cast."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
