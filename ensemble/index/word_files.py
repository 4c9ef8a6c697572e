"""Index versions of visual words: the inverted file in files, mapped at the start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from landseer.ensemble.index.choosing import Chooser, Saved
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.manifest import Built, VersionDamaged
from landseer.ensemble.index.versions import Version, Versions
from landseer.ensemble.index.word_index import SavedWords, WordIndex
from landseer.ensemble.store.store import Store

log = logging.getLogger(__name__)
SETTING = IndexSetting(factory="words")
"""Stands in the manifests: postings are the same for each kernel."""


class WordFiles(Chooser):
    """The versions of a store's words. Threads may share it."""

    def __init__(
        self,
        store: Store,
        index: WordIndex,
        *,
        versions: Versions,
        damaged: Callable[[], None],
        stop: threading.Event | None = None,
    ) -> None:
        """damaged: called for each version that was found to be damaged. stop: as for `Chooser`."""
        super().__init__(versions, store, self._now, damaged=damaged, stop=stop)
        self._index = index

    def first(self) -> tuple[Version, SavedWords] | None:
        """Return the first of the usable versions that is not damaged, and make it the active one; None without any.

        Damage of a large one is found while it serves (`check`); its words are then loaded anew.
        """
        for version in self.usable(lambda version: version.manifest.dimension == self._index.bits):
            try:
                self.check_first(version)
            except VersionDamaged as error:
                self.discard(version.number, error)
                continue
            if version.number != self.versions.active:
                self.versions.activate(version.number)
            sequence = version.manifest.built.sequence
            living = self._store.vectors.keys(upto=sequence)
            return version, SavedWords(folder=version.folder, sequence=sequence, living=living)
        return None

    def save(self) -> Version:
        """Write the words that are searched into a new version, and search them there. VersionDamaged; OSError.

        BuildStopped or SavingStopped soon after `stop` is set.
        """
        settled: list[Callable[[Path], None]] = []

        def words(folder: Path) -> Saved:
            newest, settle = self._index.save(folder, self.stop)
            settled.append(settle)
            return Saved(sequence=newest, size=self._index.stats.pictures, dimension=self._index.bits)

        version = self.write(SETTING, words)
        settled[0](version.folder)
        return version

    def _now(self) -> Built:
        sequence = self._store.stats().sequence
        return Built(fingerprint=self._index.stats.codebook, vectors="words", sequence=sequence)
