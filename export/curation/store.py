"""Store features and matches, so that an interrupted run resumes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from landseer.export.curation.errors import CurationError
from landseer.export.curation.features import Features
from landseer.export.curation.settings import MatchSettings
from landseer.export.curation.verification import Match

VERSION = "1"
"""Format version; a store of another version is not used."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, width INT, height INT, points BLOB, descriptors BLOB)",
    "CREATE TABLE IF NOT EXISTS matches (key BLOB PRIMARY KEY, points BLOB, transform BLOB)",
)


class MatchStore:
    """Features by picture bytes, matches by the bytes and order of two pictures; also by settings and OpenCV version.

    By bytes rather than name and date, so that a picture changed in place is processed again. For one thread.
    """

    def __init__(self, connection: sqlite3.Connection, settings: MatchSettings) -> None:
        import cv2

        self._connection = connection
        # Other thresholds give other matches of the same keypoints.
        self._seen = _digest(f"{VERSION} {cv2.__version__} {settings.side} {settings.keypoints}")
        self._matched = _digest(f"{VERSION} {cv2.__version__} {settings}")
        for table in _TABLES:
            connection.execute(table)

    def features(self, picture: bytes) -> Features | None:
        """Return the features of the picture with this digest, or None."""
        query = "SELECT width, height, points, descriptors FROM features WHERE key = ?"
        row = self._connection.execute(query, (_digest(self._seen, picture),)).fetchone()
        if row is None:
            return None
        points = np.frombuffer(row[2], np.float32).reshape(-1, 2)
        descriptors = np.frombuffer(row[3], np.uint8).reshape(-1, 128)
        return Features(points=points, descriptors=descriptors, width=row[0], height=row[1])

    def size(self, picture: bytes) -> tuple[int, int] | None:
        """Return the width and height of the reduced picture, or None if unknown."""
        query = "SELECT width, height FROM features WHERE key = ?"
        row = self._connection.execute(query, (_digest(self._seen, picture),)).fetchone()
        return None if row is None else (row[0], row[1])

    def put_features(self, picture: bytes, features: Features) -> None:
        """Store features durably: they survive a kill."""
        blobs = (features.points.tobytes(), features.descriptors.tobytes())
        row = (_digest(self._seen, picture), features.width, features.height, *blobs)
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?)", row)

    def match(self, first: bytes, second: bytes) -> tuple[bool, Match | None]:
        """Return whether the pair was verified, and its match."""
        query = "SELECT points, transform FROM matches WHERE key = ?"
        row = self._connection.execute(query, (_digest(self._matched, first, second),)).fetchone()
        if row is None or not row[0]:
            return row is not None, None
        points = np.frombuffer(row[0], np.float32).reshape(-1, 4)
        transform = np.frombuffer(row[1], np.float64).reshape(2, 3)
        return True, Match(first=points[:, :2], second=points[:, 2:], transform=transform)

    def put_match(self, first: bytes, second: bytes, match: Match | None) -> None:
        """Store the match of a pair, or that it has none."""
        row = (_digest(self._matched, first, second), b"", b"")
        if match is not None:
            row = (row[0], np.hstack([match.first, match.second]).tobytes(), match.transform.tobytes())
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO matches VALUES (?, ?, ?)", row)


def _digest(*parts: str | bytes) -> bytes:
    return hashlib.sha256(b"".join(part.encode() if isinstance(part, str) else part for part in parts)).digest()


@contextmanager
def match_store(path: Path, settings: MatchSettings) -> Iterator[MatchStore]:
    """Open the store in a file, creating it if needed. CurationError if it cannot be used."""
    connection: sqlite3.Connection | None = None
    try:
        _make_folder(path.parent)
        connection = sqlite3.connect(path, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        yield MatchStore(connection, settings)
    except sqlite3.Error as error:
        raise CurationError(f"cannot keep matches in {path} ({error}); name another file: --cache") from error
    finally:
        if connection is not None:
            connection.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CurationError(
            f"cannot keep matches in {folder} ({error.strerror}); name another file: --cache"
        ) from error
