"""Vectors that were computed before: describing pictures takes most of the time of an evaluation."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ops.evaluate.dataset import Shot
from landseer.ops.processes import OpsError


class VectorCache:
    """A file of vectors by what they were computed from: models, preprocessing, and the picture's bytes.

    By bytes, not by name and date: a picture that was changed in place must be described again.
    """

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection = connection
        self._models = hashlib.sha256(fingerprint.encode()).digest()
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")

    def get(self, shot: Shot, data: bytes) -> NDArray[np.float32] | None:
        """Return the vector of a picture with these bytes, or None."""
        row = self._connection.execute("SELECT vector FROM vectors WHERE key = ?", (self._key(shot, data),)).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32)

    def put(self, shot: Shot, data: bytes, vector: NDArray[np.float32]) -> None:
        """Keep a vector; what is kept survives whatever ends the program."""
        with self._connection:
            row = (self._key(shot, data), vector.astype(np.float32).tobytes())
            self._connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", row)

    def _key(self, shot: Shot, data: bytes) -> bytes:
        part = repr(shot.region).encode()
        return hashlib.sha256(self._models + part + hashlib.sha256(data).digest()).digest()


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
