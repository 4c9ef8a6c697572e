"""Versions of the indexed fields: their columns in files, read at the start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from landseer.ensemble.index.choosing import Chooser, Saved
from landseer.ensemble.index.columns import Columns
from landseer.ensemble.index.fields import Fields
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.manifest import Built, VersionDamaged
from landseer.ensemble.index.versions import Version, Versions
from landseer.ensemble.store.store import Store

log = logging.getLogger(__name__)


class FieldFiles(Chooser):
    """The versions of a store's indexed fields. Threads may share it."""

    def __init__(
        self,
        store: Store,
        fields: Fields,
        *,
        versions: Versions,
        damaged: Callable[[], None],
        stop: threading.Event | None = None,
    ) -> None:
        """damaged: called for each version that was found to be damaged. stop: as for `Chooser`."""
        super().__init__(versions, store, self._now, damaged=damaged, stop=stop)
        self._fields = fields
        # Other fields, or fields of another kind, are another setting.
        self._setting = IndexSetting(factory="fields " + ", ".join(f"{k}:{v}" for k, v in sorted(fields.kinds.items())))

    def first(self) -> tuple[Columns, int] | None:
        """Read the first of the usable versions that is not damaged, and make it the active one; None without any.

        Returns the columns, and the change of the store up to which they go.
        """
        for version in self.usable(self.fits):
            sequence, columns = version.manifest.built.sequence, Columns(self._fields.kinds)
            try:
                version.manifest.check(version.folder, self.stop)
                columns.load(version.folder, self._store.vectors.keys(upto=sequence))
            except (VersionDamaged, ValueError) as error:
                self.discard(version.number, error)
                continue
            except OSError as error:
                log.error("version %d of the fields cannot be read, and is passed over: %s", version.number, error)
                continue
            if version.number != self.versions.active:
                self.versions.activate(version.number)
            return columns, sequence
        return None

    def save(self) -> Version:
        """Write the fields as they are now into a new version. VersionDamaged; OSError; BuildStopped."""
        snapshot, settle = self._fields.unsaved()

        def write(folder: Path) -> Saved:
            snapshot.save(folder)
            return Saved(sequence=snapshot.newest, size=int(snapshot.alive.sum()), dimension=len(snapshot.values))

        version = self.write(self._setting, write)
        settle()
        return version

    def fits(self, version: Version) -> bool:
        """Return whether a version has the fields that are indexed."""
        return version.manifest.setting == self._setting

    def _now(self) -> Built:
        return Built(fingerprint="", vectors="fields", sequence=self._store.metadata.sequence())
