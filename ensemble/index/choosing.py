"""Chooses which index version serves, and deletes those that are damaged."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.manifest import Built, Manifest, OtherFormat, VersionDamaged, files_of
from landseer.ensemble.index.versions import Version, Versions
from landseer.ensemble.store.store import Store

log = logging.getLogger(__name__)
CHECKED_AT_ONCE = 2**28
"""Bytes of a version up to which all of them are read and checked before it serves."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was written for a version."""

    sequence: int
    """Of the store, up to which it goes."""
    size: int
    """Number of pictures."""
    dimension: int
    """Of the manifest."""


class Chooser:
    """The versions of one kind that an open store has. Threads may share it."""

    def __init__(
        self,
        versions: Versions,
        store: Store,
        state: Callable[[], Built],
        *,
        damaged: Callable[[], None],
        stop: threading.Event | None = None,
    ) -> None:
        """state: returns what a version would be built from now. damaged: called for each version that is damaged.

        stop: once it is set, checks and saves end soon, with BuildStopped.
        """
        self.versions, self.state, self.stop = versions, state, stop
        self._store, self._damaged = store, damaged

    def usable(self, fits: Callable[[Version], bool]) -> Iterator[Version]:
        """Yield the versions that can serve the store: the active one first, then the others, newest first.

        fits: whether a version is wanted at all. Damaged versions are deleted, and named in the log.
        """
        numbers = self.versions.by_preference()
        if not numbers:
            return
        state, tokens = self.state(), self._store.index_tokens.read()
        for number in numbers:
            try:
                version = self.versions.read(number)
            except OtherFormat as error:
                log.info("index version %d is not used: %s", number, error)
                continue
            except VersionDamaged as error:
                self.discard(number, error)
                continue
            why = version.why_not(state, tokens) or ("" if fits(version) else "another index is configured")
            if why:
                log.info("index version %d is not used: %s", number, why)
            else:
                yield version

    def publish(self, folder: Path) -> Version:
        """Make the version that was built in a folder aside the active one. VersionDamaged; StoreUnusable; OSError.

        A kill at any moment leaves the version before or this one active, and both whole.
        """
        version = self.versions.publish(folder)
        self._store.index_tokens.note(version.manifest.token)
        self.versions.activate(version.number)
        return version

    def write(self, setting: IndexSetting, fill: Callable[[Path], Saved]) -> Version:
        """Let `fill` write into an empty folder, and make that the active version.

        VersionDamaged; StoreUnusable; OSError; BuildStopped soon after `stop` is set.
        """
        began, state = time.monotonic(), self.state()
        token, folder = self.versions.aside()
        try:
            saved = fill(folder)
            made = Manifest(
                token=token,
                built=replace(state, sequence=saved.sequence),
                setting=setting,
                dimension=saved.dimension,
                size=saved.size,
                longest=1.0,
                made_at=time.time(),
                made_by=f"{platform.node()}, process {os.getpid()}",
                seconds=round(time.monotonic() - began, 3),
                files=files_of(folder, self.stop),
            )
            made.write(folder)
            return self.publish(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def check(self, number: int) -> bool:
        """Read every byte of a version that serves; delete it, and return False, if it is not as it was written.

        What is mapped of it stays until it is not used any more.
        """
        try:
            version = self.versions.read(number)
            version.manifest.check(version.folder, self.stop)
        except VersionDamaged as error:
            self.discard(number, error)
            return False
        if self.versions.unchecked == number:
            self.versions.mark_unchecked(None)
        return True

    def discard(self, number: int, error: Exception) -> None:
        """Delete a version that is damaged, and say so."""
        log.error("index version %d is damaged and is deleted: %s; another one, or a new one, serves", number, error)
        self._damaged()
        try:
            self.versions.discard(number)
        except OSError as why:
            log.error("index version %d cannot be deleted: %s", number, why)

    def check_first(self, version: Version) -> None:
        """Check all bytes of a version that is small, or whose check did not end: its use may have ended the server."""
        if version.manifest.bytes <= CHECKED_AT_ONCE or self.versions.unchecked == version.number:
            version.manifest.check(version.folder, self.stop)
            self.versions.mark_unchecked(None)
        else:
            self.versions.mark_unchecked(version.number)
