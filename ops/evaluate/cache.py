"""What pictures were described by before: describing pictures takes most of the time of an evaluation."""

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
    """A file of arrays by what they were computed from: models, preprocessing, and the picture's bytes; and by name.

    By bytes, not by name and date: a picture that was changed in place must be described again.
    """

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection = connection
        self._models = hashlib.sha256(fingerprint.encode()).digest()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS arrays (key BLOB, name TEXT, dtype TEXT NOT NULL, shape TEXT NOT NULL, "
            "data BLOB NOT NULL, PRIMARY KEY (key, name)) WITHOUT ROWID"
        )

    def key(self, shot: Shot, data: bytes) -> bytes:
        """Return what a picture with these bytes is kept under."""
        part = repr(shot.region).encode()
        return hashlib.sha256(self._models + part + hashlib.sha256(data).digest()).digest()

    def names(self, key: bytes) -> frozenset[str]:
        """Return which arrays of a picture are there."""
        rows = self._connection.execute("SELECT name FROM arrays WHERE key = ?", (key,))
        return frozenset(name for (name,) in rows)

    def get(self, key: bytes, name: str) -> NDArray[Any] | None:
        """Return an array of a picture, or None."""
        query = "SELECT dtype, shape, data FROM arrays WHERE key = ? AND name = ?"
        row = self._connection.execute(query, (key, name)).fetchone()
        return None if row is None else np.frombuffer(row[2], np.dtype(row[0])).reshape(json.loads(row[1]))

    def put(self, key: bytes, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays of a picture; what is kept survives whatever ends the program."""
        rows = [(key, name, one.dtype.str, json.dumps(one.shape), one.tobytes()) for name, one in arrays.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?, ?, ?)", rows)


@contextmanager
def vector_cache(path: Path, fingerprint: str) -> Iterator[VectorCache]:
    """Open the cache in a file, which is made if it is not there."""
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
    return OpsError(f"cannot keep vectors in {path} ({error}); name another file: --cache")


class ArrayReader:
    """The arrays of those pictures whose keys are known."""

    def __init__(self, cache: Path, profile: Profile) -> None:
        self._cache, self._profile = cache, profile
        self.keys: dict[Shot, bytes] = {}
        """What each picture is kept under."""

    def read(self, name: str, shots: Sequence[Shot]) -> Iterator[NDArray[Any]]:
        """Yield the array of this name of each picture. OpsError if it is not there."""
        kept = kept_as(name, self._profile)
        with vector_cache(self._cache, self._profile.fingerprint) as cache:
            for shot in shots:
                found = cache.get(self.keys[shot], kept)
                if found is None:
                    raise OpsError(f"{self._cache} has lost {name} of {shot.path}; run the same command again")
                yield found
