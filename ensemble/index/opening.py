"""Maps the index version of vectors that serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.choosing import Chooser
from landseer.ensemble.index.engines import Keys
from landseer.ensemble.index.faiss_index import FaissIndex
from landseer.ensemble.index.living_main import LivingMain
from landseer.ensemble.index.manifest import Built, VersionDamaged
from landseer.ensemble.index.mapped_vectors import FILE, MappedVectors
from landseer.ensemble.index.versions import Version, Versions
from landseer.ensemble.store.record import StoreStats
from landseer.ensemble.store.store import Store

log = logging.getLogger(__name__)


def state_of(stats: StoreStats, fingerprint: str, *, augmented: bool) -> Built:
    """Return what an index of a store with these figures would be built from. fingerprint: of its profile."""
    made = stats.augmentation if augmented else None
    vectors = "raw" if made is None else f"augmented ({made.method} {made.network} at {made.sequence})"
    return Built(fingerprint=fingerprint, vectors=vectors, sequence=stats.sequence)


class Opener(Chooser):
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
        stop: threading.Event | None = None,
    ) -> None:
        """damaged: called for each version that was found to be damaged. stop: as for `Chooser`."""
        super().__init__(
            versions,
            store,
            lambda: state_of(store.stats(), fingerprint, augmented=augmented),
            damaged=damaged,
            stop=stop,
        )
        self._augmented, self._threads = augmented, threads

    def first(self, fits: Callable[[Version], bool]) -> LivingMain | None:
        """Map the first of the usable versions that is not damaged, and make it the active one; None without any."""
        for version in self.usable(fits):
            try:
                self.check_first(version)
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

    def scan(self, after: int) -> Iterator[tuple[Keys, NDArray[np.float16]]]:
        """Yield keys [n] and vectors [n, D] of the pictures of keys above `after`, as of `Vectors.scan`."""
        return self._store.vectors.scan(after=after, augmented=self._augmented)

    def living(self, version: Version) -> LivingMain:
        """Map a version, without the pictures that the store has no more. VersionDamaged; OSError."""
        made = version.manifest
        try:
            index = FaissIndex.load(version.folder, threads=self._threads)
            mapped = self._mapped(version)
        except ValueError as error:
            raise VersionDamaged(str(error)) from error
        if (index.size, index.dimension) != (made.size, made.dimension):
            raise VersionDamaged(f"{version.folder} has {index.size:,} vectors; its manifest says {made.size:,}")
        stored = partial(self._store.vectors.descriptors, augmented=self._augmented)
        found = LivingMain(
            index,
            stored,
            sequence=made.built.sequence,
            longest=made.longest,
            number=version.number,
            mapped=mapped,
        )
        found.keep(self._store.vectors.keys(upto=made.built.sequence))
        return found

    def _mapped(self, version: Version) -> MappedVectors | None:
        """Map the vectors of a version; None for one of an older release, which has none."""
        file, made = version.folder / FILE, version.manifest
        return MappedVectors(file, dimension=made.dimension, size=made.size) if file.exists() else None
