"""Checksums of what a store keeps about a picture, so that damaged bytes are an error and never an answer.

LMDB has none. Each record has one entry: for each database in `SUMMED` that has a value, its place (one byte) and the
CRC-32 of the key and the value (four bytes, little-endian). Records of older releases have no entry: for them nothing
is compared.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.folder import KEYPOINTS, LOCALS, PATCHES, SUMS
from landseer.ensemble.store.record import unpack_key

SUMMED = (b"records", b"descriptors", b"clusters", b"thumbnails", LOCALS, KEYPOINTS, PATCHES)
"""The databases whose values have checksums. New ones come last: places are stored."""
_PLACES = {name: place for place, name in enumerate(SUMMED)}
_ENTRY = struct.Struct("<BI")
KNOWN = 16_384
"""Records whose checksums are kept, 400 bytes each. They never change, and a search reads several values of each."""
Buffer = bytes | memoryview


class Sums:
    """The checksums in an open store. Threads may share it."""

    def __init__(self, folder: Path, databases: dict[bytes, Any]) -> None:
        self._folder, self._database = folder, databases[SUMS]
        self._summed = [databases[name] for name in SUMMED]
        self._known: dict[bytes, dict[int, int]] = {}

    def put(self, transaction: Any, key: bytes) -> None:
        """Write the checksums of a record, after everything else of it, in the same transaction."""
        values = ((place, transaction.get(key, db=database)) for place, database in enumerate(self._summed))
        entry = b"".join(_ENTRY.pack(place, _sum(key, value)) for place, value in values if value is not None)
        transaction.put(key, entry, append=True, db=self._database)

    def check(self, transaction: Any, key: bytes, name: bytes, value: Buffer | None) -> None:
        """Raise StoreUnusable unless `value`, of the database `name`, is what was written; None is a missing one."""
        place, found = _PLACES[name], None if value is None else _sum(key, value)
        known = self._known.get(key)
        if known is not None and known.get(place) == found:
            return
        # Not known yet, deleted since, or damaged: what the store has decides.
        entry = transaction.get(key, db=self._database)
        if entry is None:
            return
        written = dict(_ENTRY.iter_unpack(entry))
        if written.get(place) != found:
            raise StoreUnusable(
                f"{self._folder} is damaged: {name.decode()} of record {unpack_key(key)} differ from what was written; "
                "restore it from a backup, or index the pictures again"
            )
        if len(self._known) >= KNOWN:
            self._known = {}
        self._known[bytes(key)] = written


def _sum(key: bytes, value: Buffer) -> int:
    return zlib.crc32(value, zlib.crc32(key))
