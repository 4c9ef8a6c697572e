"""A cache of descriptions: describing pictures takes most of the time of an evaluation."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.profile import Profile
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.arrays import kept_as
from landseer.ops.evaluate.dataset import Shot


class VectorCache:
    """A file of arrays. The key is what they were computed from (models, preprocessing, picture bytes) and a name.

    The bytes, not path and date, identify a picture: one that was changed in place must be described again.
    """

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection = connection
        self._models = hashlib.sha256(fingerprint.encode()).digest()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS arrays (key BLOB, name TEXT, dtype TEXT NOT NULL, shape TEXT NOT NULL, "
            "data BLOB NOT NULL, PRIMARY KEY (key, name)) WITHOUT ROWID"
        )

    def key(self, shot: Shot, data: bytes) -> bytes:
        """Return the key of a picture with these bytes."""
        part = (repr(shot.region) + (f" turned {shot.turn}" if shot.turn else "")).encode()
        return hashlib.sha256(self._models + part + hashlib.sha256(data).digest()).digest()

    def names(self, key: bytes) -> frozenset[str]:
        """Return the names of the arrays that a picture has."""
        rows = self._connection.execute("SELECT name FROM arrays WHERE key = ?", (key,))
        return frozenset(name for (name,) in rows)

    def get(self, key: bytes, name: str) -> NDArray[Any] | None:
        """Return an array of a picture, or None."""
        query = "SELECT dtype, shape, data FROM arrays WHERE key = ? AND name = ?"
        row = self._connection.execute(query, (key, name)).fetchone()
        return None if row is None else np.frombuffer(row[2], np.dtype(row[0])).reshape(json.loads(row[1]))

    def put(self, key: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays of a picture; they survive a crash of the process."""
        rows = [(key, name, one.dtype.str, json.dumps(one.shape), one.tobytes()) for name, one in arrays.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?, ?, ?)", rows)


@contextmanager
def vector_cache(path: Path, fingerprint: str) -> Iterator[VectorCache]:
    """Open the cache in a file, created if it does not exist."""
    connection: sqlite3.Connection | None = None
    try:
        connection = _opened(path)
        yield VectorCache(connection, fingerprint)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    finally:
        if connection is not None:
            connection.close()


def _opened(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _unusable(path: Path, error: Exception) -> OpsError:
    return OpsError(f"cannot use the cache {path} ({error}); name another file: --cache")


class ArrayReader:
    """Reads arrays from the cache one picture at a time: together they may take gigabytes."""

    def __init__(self, cache: Path, profile: Profile) -> None:
        self._cache, self._profile = cache, profile
        self.keys: dict[Shot, bytes] = {}
        """The key of each picture that was described."""

    def read(self, name: str, shots: Sequence[Shot]) -> Iterator[NDArray[Any]]:
        """Yield the array of this name for each picture. OpsError if the cache lacks it."""
        kept = kept_as(name, self._profile)
        with vector_cache(self._cache, self._profile.fingerprint) as cache:
            for shot in shots:
                found = cache.get(self.keys[shot], kept)
                if found is None:
                    raise OpsError(f"{self._cache} no longer has {name} of {shot.path}; run the same command again")
                yield found
