"""Check a whole store: `python -m landseer.ensemble.store.check FOLDER`.

The store must not be in use. Exits with 0 if it is sound, else with 1 and one line per fault. A truncated data file
kills the process (SIGBUS), so `folder` runs this module in a subprocess.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from landseer.ensemble.errors import LandseerError
from landseer.ensemble.keypoints.compact import unpack_keypoints
from landseer.ensemble.keypoints.patches import unpack_patches
from landseer.ensemble.store.folder import (
    DATABASES,
    FORMAT,
    KEYPOINTS,
    LATER,
    LOCALS,
    PATCHES,
    SLOTS,
    WORDS,
    open_environment,
)
from landseer.ensemble.store.local_features import unpack_features
from landseer.ensemble.store.record import decode, halves
from landseer.ensemble.store.words import unpack_words

_DERIVED: dict[bytes, tuple[str, Callable[[memoryview], Any]]] = {
    LOCALS: ("local features", unpack_features),
    WORDS: ("visual words", unpack_words),
    KEYPOINTS: ("keypoints", unpack_keypoints),
    PATCHES: ("patches", unpack_patches),
}
"""What some records have, and how it is read."""


def faults(folder: Path) -> Iterator[str]:
    """Yield the faults of the store in folder, one sentence each."""
    environment = open_environment(folder, limit_bytes=2**20, readonly=True, lock=False, create=False)
    try:
        with environment.begin(buffers=True) as transaction:
            databases = dict(_opened(environment, transaction))
            yield from _faults(transaction, databases)
    finally:
        environment.close()


def _opened(environment: Any, transaction: Any) -> Iterator[tuple[bytes, Any]]:
    for name in DATABASES:
        # Stores of older releases lack some of them.
        with contextlib.suppress(*([lmdb.NotFoundError] if name in LATER else [])):
            yield name, environment.open_db(name, txn=transaction, create=False)


def _faults(transaction: Any, databases: dict[bytes, Any]) -> Iterator[str]:
    if transaction.get(b"format", db=databases[b"meta"]) != FORMAT:
        yield f"the format is not {FORMAT.decode()}"
    sequence = int.from_bytes(transaction.get(b"sequence", b"", db=databases[b"meta"]), "big")
    for name in (b"ids", b"descriptors", b"clusters"):
        have, want = (transaction.stat(databases[each])["entries"] for each in (name, b"records"))
        if have != want:
            yield f"{have} {name.decode()} for {want} records"
    for key, data in transaction.cursor(databases[b"records"]):
        number = int.from_bytes(key, "big")
        if number > sequence:
            yield f"record {number} is newer than the last change, {sequence}"
        yield from _record_faults(transaction, databases, bytes(key), data)
    for name in SLOTS:
        if name in databases:
            yield from _augmented_faults(transaction, databases, name)
    for name, (what, read) in _DERIVED.items():
        if name in databases:
            yield from _derived_faults(transaction, databases, name, what, read)


def _record_faults(transaction: Any, databases: dict[bytes, Any], key: bytes, data: memoryview) -> Iterator[str]:
    number = int.from_bytes(key, "big")
    vectors = {name: halves(transaction.get(key, b"", db=databases[name])) for name in (b"descriptors", b"clusters")}
    # Reads the thumbnail's last page too.
    bytes(transaction.get(key, b"", db=databases[b"thumbnails"]))
    try:
        record = decode(data, descriptor=vectors[b"descriptors"], clusters=vectors[b"clusters"], thumbnail=b"")
    except ValueError as error:
        yield f"record {number}: {error}"
        return
    if transaction.get(record.id.encode(), db=databases[b"ids"]) != key:
        yield f"record {number}: its id {record.id!r} maps to another record"
    norm = float(np.linalg.norm(record.descriptor.astype(np.float64)))
    if not len(record.descriptor) or not np.isfinite(norm):
        yield f"record {number}: its descriptor has {len(record.descriptor)} values and norm {norm}"


def _augmented_faults(transaction: Any, databases: dict[bytes, Any], name: bytes) -> Iterator[str]:
    for key, data in transaction.cursor(databases[name]):
        number, raw = int.from_bytes(key, "big"), transaction.get(bytes(key), b"", db=databases[b"descriptors"])
        if len(data) != len(raw) or not np.isfinite(halves(data)).all():
            yield f"augmented vector {number}: {len(data)} bytes instead of {len(raw)}, or values that are not finite"


def _derived_faults(
    transaction: Any, databases: dict[bytes, Any], name: bytes, what: str, read: Callable[[memoryview], Any]
) -> Iterator[str]:
    for key, data in transaction.cursor(databases[name]):
        number = int.from_bytes(key, "big")
        if transaction.get(bytes(key), db=databases[b"records"]) is None:
            yield f"{what} {number}: their record is missing"
        try:
            read(data)
        except ValueError as error:
            yield f"{what} {number}: {error}"


def main() -> int:
    """Check the folder named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python -m landseer.ensemble.store.check FOLDER", file=sys.stderr)
        return 2
    try:
        found = list(faults(Path(sys.argv[1])))
    except LandseerError as error:
        found = [str(error)]
    print("\n".join(found) or "all is well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
