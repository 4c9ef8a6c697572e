"""The Parquet file that a store is exported to: its columns, and what the file says about the store.

A row is a picture, in the order in which the pictures were written:

    key             int64: the change that wrote it
    id              string
    metadata        map of strings to strings
    width, height   int32, pixels
    model_version   string
    indexed_at      double, Unix seconds
    descriptor      list of D float16
    query_vector    list of P float16
    clusters        list of lists of P float16
    boxes           list of structures of x, y, width, height, score, float32
    feature_map     binary: x, y, cluster, scale of each local feature, uint8
    thumbnail       binary, a JPEG or empty
    locals, words, keypoints, patches
                    binary, packed as in the store, or null

The fields of `Record` say what they are. The file's metadata has an entry `landseer` with what the store was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from landseer.ensemble.errors import LandseerError
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.sealed import opened, sealed
from landseer.ensemble.store.whole import FEATURES, WholeRecord

FORMAT = "landseer-parquet-1"
"""Changes when a release cannot read the exports of older ones."""
ABOUT = b"landseer"
FEATURE_NAMES = tuple(name.decode() for name in FEATURES)
_BOX = ("x", "y", "width", "height", "score")
_PLAIN = ("id", "width", "height", "model_version", "indexed_at")


class ExportUnusable(LandseerError):
    """A file is not the export of a store, cannot become one, or is damaged."""

    code = "FAILED_PRECONDITION"
    reason = "EXPORT_UNUSABLE"


@dataclass(frozen=True, kw_only=True)
class About:
    """What an export says about its store."""

    release: str
    """Of Landseer, which wrote the file."""
    made_at: str
    """ISO 8601, UTC."""
    fingerprint: str
    """Of the profile of its vectors."""
    sequence: int
    """Number of changes of the store so far."""
    pictures: int
    stamps: dict[str, str]
    """What made the features in the file, by name."""

    def to_text(self) -> str:
        """Return the entry of the file's metadata."""
        return sealed(FORMAT, dataclasses.asdict(self))

    @classmethod
    def of(cls, metadata: dict[bytes, bytes] | None) -> About:
        """Read the entry. ValueError."""
        if metadata is None or ABOUT not in metadata:
            raise ValueError("it was not written by `landseer export-store`, or another program has written it anew")
        try:
            return cls(**opened(FORMAT, metadata[ABOUT]))
        except TypeError as error:
            raise ValueError(str(error)) from error


def schema_of(about: About, *, descriptor: int, reduced: int) -> pa.Schema:
    """Return the columns. descriptor: D. reduced: P."""
    half = pa.float16()
    box = pa.struct([pa.field(name, pa.float32(), nullable=False) for name in _BOX])
    required = {
        "key": pa.int64(),
        "id": pa.string(),
        "metadata": pa.map_(pa.string(), pa.string()),
        "width": pa.int32(),
        "height": pa.int32(),
        "model_version": pa.string(),
        "indexed_at": pa.float64(),
        "descriptor": pa.list_(half, descriptor),
        "query_vector": pa.list_(half, reduced),
        "clusters": pa.list_(pa.list_(half, reduced)),
        "boxes": pa.list_(box),
        "feature_map": pa.binary(),
        "thumbnail": pa.binary(),
    }
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pa.field(name, pa.binary()) for name in FEATURE_NAMES]
    return pa.schema(fields, metadata={ABOUT: about.to_text()})


def to_batch(rows: Sequence[WholeRecord], schema: pa.Schema) -> pa.RecordBatch:
    """Return rows as columns."""
    records = [row.record for row in rows]
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in _PLAIN}
    columns |= {
        "key": [row.key for row in rows],
        "metadata": [list(record.metadata.items()) for record in records],
        "descriptor": _fixed(np.stack([record.descriptor for record in records])),
        "query_vector": _fixed(np.stack([record.query_vector for record in records])),
        "clusters": _lists([_fixed(record.clusters) for record in records]),
        "boxes": _lists([_boxes(record.boxes) for record in records]),
        "feature_map": [record.feature_map.tobytes() for record in records],
        "thumbnail": [record.thumbnail for record in records],
    }
    columns |= {name: [row.features.get(name) for row in rows] for name in FEATURE_NAMES}
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def to_rows(batch: pa.RecordBatch) -> Iterator[WholeRecord]:
    """Yield the rows of columns."""
    plain = {name: batch.column(name).to_pylist() for name in ("key", "metadata", "thumbnail", *_PLAIN, *FEATURE_NAMES)}
    vectors = {name: _matrix(batch.column(name)) for name in ("descriptor", "query_vector")}
    clusters, boxes, maps = (batch.column(name) for name in ("clusters", "boxes", "feature_map"))
    for row in range(batch.num_rows):
        found = {name: plain[name][row] for name in FEATURE_NAMES}
        yield WholeRecord(
            key=plain["key"][row],
            record=Record(
                **{name: plain[name][row] for name in _PLAIN},
                metadata=dict(plain["metadata"][row]),
                **{name: rows[row] for name, rows in vectors.items()},
                clusters=_matrix(clusters[row].values),
                boxes=_box_rows(boxes[row].values),
                feature_map=np.frombuffer(maps[row].as_py(), np.uint8).reshape(-1, 4),
                thumbnail=plain["thumbnail"][row],
            ),
            features={name: value for name, value in found.items() if value is not None},
        )


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _fixed(rows: npt.NDArray[np.float16]) -> pa.FixedSizeListArray:
    """Return rows float16 [n, D]."""
    values = np.ascontiguousarray(rows, np.float16).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float16()), rows.shape[1])


def _boxes(boxes: npt.NDArray[np.float32]) -> pa.StructArray:
    columns = [pa.array(np.ascontiguousarray(column)) for column in np.asarray(boxes, np.float32).T]
    fields = [pa.field(name, pa.float32(), nullable=False) for name in _BOX]
    return pa.StructArray.from_arrays(columns, fields=fields)


def _lists(parts: Sequence[pa.Array]) -> pa.ListArray:
    """Return a list for each part."""
    offsets = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(parts))


def _matrix(lists: pa.FixedSizeListArray) -> npt.NDArray[np.float16]:
    """Return rows float16 [n, D]."""
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    return np.asarray(values.reshape(len(lists), lists.type.list_size), np.float16)


def _box_rows(boxes: pa.StructArray) -> npt.NDArray[np.float32]:
    columns = [boxes.field(name).to_numpy(zero_copy_only=False).astype(np.float32, copy=False) for name in _BOX]
    return np.stack(columns, axis=1)
