"""Chooses the index version that serves, and maps it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from landseer.ensemble.index.faiss_index import FaissIndex
from landseer.ensemble.index.living_main import LivingMain
from landseer.ensemble.index.manifest import Built, VersionDamaged
from landseer.ensemble.index.versions import Version, Versions
from landseer.ensemble.store.record import StoreStats
from landseer.ensemble.store.store import Store

log = logging.getLogger(__name__)
CHECKED_AT_ONCE = 2**28
"""Bytes of a version up to which all of them are read and checked before it serves, which takes 0.2 s."""


def state_of(stats: StoreStats, fingerprint: str, *, augmented: bool) -> Built:
    """Return what an index of a store with these figures would be built from. fingerprint: of its profile."""
    made = stats.augmentation if augmented else None
    vectors = "raw" if made is None else f"augmented ({made.method} {made.network} at {made.sequence})"
    return Built(fingerprint=fingerprint, vectors=vectors, sequence=stats.sequence)


class Opener:
    """Maps the index versions of an open store. Threads may share it."""

    def __init__(
        self,
        versions: Versions,
        store: Store,
        *,
        fingerprint: str,
        augmented: bool,
        threads: int,
        damaged: Callable[[], None],
    ) -> None:
        """damaged: called for each version that was found to be damaged."""
        self.versions, self._store = versions, store
        self._fingerprint, self._augmented, self._threads = fingerprint, augmented, threads
        self._damaged = damaged

    def state(self) -> Built:
        """Return what an index of the store would be built from now."""
        return state_of(self._store.stats(), self._fingerprint, augmented=self._augmented)

    def usable(self, fits: Callable[[Version], bool]) -> Iterator[Version]:
        """Yield the versions that can serve the store: the active one first, then the others, newest first.

        fits: whether a version is wanted at all. Damaged versions are deleted, and named in the log.
        """
        state, tokens = self.state(), self._store.index_tokens.read()
        for number in self.versions.by_preference():
            try:
                version = self.versions.read(number)
            except VersionDamaged as error:
                self.discard(number, error)
                continue
            why = version.why_not(state, tokens) or ("" if fits(version) else "another index is configured")
            if why:
                log.info("index version %d is not used: %s", number, why)
            else:
                yield version

    def first(self, fits: Callable[[Version], bool]) -> LivingMain | None:
        """Map the first of the usable versions that is not damaged, and make it the active one; None without any."""
        for version in self.usable(fits):
            try:
                self._check_first(version)
                found = self.living(version)
            except VersionDamaged as error:
                self.discard(version.number, error)
                continue
            except OSError as error:
                log.error("index version %d cannot be mapped, and is passed over: %s", version.number, error)
                continue
            if version.number != self.versions.active:
                self.versions.activate(version.number)
            return found
        return None

    def living(self, version: Version) -> LivingMain:
        """Map a version, without the pictures that the store has no more. VersionDamaged; OSError."""
        made = version.manifest
        try:
            index = FaissIndex.load(version.folder, threads=self._threads)
        except ValueError as error:
            raise VersionDamaged(str(error)) from error
        if (index.size, index.dimension) != (made.size, made.dimension):
            raise VersionDamaged(f"{version.folder} has {index.size:,} vectors; its manifest says {made.size:,}")
        stored = partial(self._store.vectors.descriptors, augmented=self._augmented)
        found = LivingMain(index, stored, sequence=made.built.sequence, longest=made.longest, number=version.number)
        found.keep(self._store.vectors.keys(upto=made.built.sequence))
        return found

    def publish(self, folder: Path) -> Version:
        """Make the version that was built in a folder aside the active one. VersionDamaged; StoreUnusable; OSError.

        A kill at any moment leaves the version before or this one active, and both whole.
        """
        kept = frozenset(self._tokens())
        version = self.versions.publish(folder)
        self._store.index_tokens.note(version.manifest.token, kept=kept)
        self.versions.activate(version.number)
        return version

    def _tokens(self) -> Iterator[str]:
        for number in self.versions.numbers:
            with contextlib.suppress(VersionDamaged):
                yield self.versions.read(number).manifest.token

    def check(self, number: int) -> bool:
        """Read every byte of a version that serves; delete it, and return False, if it is not as it was written.

        What is mapped of it stays until it is not used any more.
        """
        try:
            version = self.versions.read(number)
            version.manifest.check(version.folder)
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

    def _check_first(self, version: Version) -> None:
        """Check all bytes of a version that is small, or whose check did not end: its use may have ended the server."""
        if version.manifest.bytes <= CHECKED_AT_ONCE or self.versions.unchecked == version.number:
            version.manifest.check(version.folder)
            self.versions.mark_unchecked(None)
        else:
            self.versions.mark_unchecked(version.number)
