"""Notices that files were replaced, so that certificates and tokens can change without a restart."""

from __future__ import annotations

from pathlib import Path


class WatchedFiles:
    """Some files, and how they were at the last look. Links are followed, as Kubernetes replaces secrets by them."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen: list[tuple[int, int, int]] | None = None

    def changed(self) -> bool:
        """Return whether one was replaced or written since the last call; True on the first. OSError if one is gone.

        Ask before you read: what is written in between counts as a change at the next call.
        """
        states = [path.stat() for path in self._paths]
        found = [(state.st_ino, state.st_mtime_ns, state.st_size) for state in states]
        before, self._seen = self._seen, found
        return found != before
