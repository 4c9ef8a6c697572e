"""Visual words of deep local features: those in the store, with a codebook from `landseer codebook`.

The words of a picture are computed once, when it is indexed or when words are first used, and kept in the store; a
picture takes 3 ms with 1,024 words, 200 ms with 65,536.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary, asmk, rasmk
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.errors import ProfileMismatch, StoreFull
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ensemble.workers import Workers

log = logging.getLogger(__name__)
BATCH = 256
"""Pictures whose words are computed at a time: 65 MB of local features."""
MULTIPLE = {"how": 5, "how-idf": 5}
"""Words assigned to each feature of a query, by kernel; 1 for the others, and for indexed pictures."""


class DeepWords:
    """ASMK* of the deep local features in a store (R-ASMK* for pictures with regions)."""

    def __init__(self, codebook: Codebook, store: Store, *, kernel: str, threads: int) -> None:
        self._codebook, self._store = codebook, store
        self.kernel = kernel
        self.fingerprint, self.words, self.bits = codebook.fingerprint, codebook.words, codebook.dimension
        self._queries = Workers("deep-words", threads=threads)
        self._bulk = Workers("deep-words-bulk", threads=threads, queue=4096)

    async def of_picture(self, features: LocalFeatures) -> Binary:
        """Return the words of a picture to index, from its features as the store keeps them."""
        return await self._bulk.run(lambda: self._of_picture(unpack_features(pack_features(features))))

    async def of_query(self, features: LocalFeatures) -> Binary:
        """Return the words of a query, from the features of the whole picture."""
        return await self._queries.run(self._of_query, features.whole)

    def of_record(self, record: Record) -> Binary | None:
        """Return the words of a picture that was stored."""
        return record.words

    def stored(self, stop: threading.Event, *, after: int = 0) -> Iterator[tuple[NDArray[np.int64], list[Binary]]]:
        """Yield the words in the store of keys above `after`; any that are missing are computed and written there."""
        self._store.words.stamp(self.fingerprint)
        for keys, pictures in self._store.words.scan(after=after):
            yield keys, pictures
            if stop.is_set():
                return
        missing = self._store.words.missing()
        for first in range(0, len(missing), BATCH):
            if stop.is_set():
                return
            yield self._computed(missing[first : first + BATCH])
            log.info("visual words: computed for %s of %s pictures", f"{first + BATCH:,}", f"{len(missing):,}")

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._queries.close()
        self._bulk.close()

    def _computed(self, missing: Sequence[int]) -> tuple[NDArray[np.int64], list[Binary]]:
        """Compute the words of pictures, and write them to the store if it has room."""
        found = zip(missing, self._store.locals.read(missing), strict=True)
        words = {key: self._of_picture(features) for key, features in found if features is not None}
        try:
            self._store.words.add(list(words), list(words.values()))
        except StoreFull as error:
            log.warning("visual words cannot be stored and will be computed again at each start: %s", error)
        return np.array(list(words), np.int64), list(words.values())

    def _of_picture(self, features: LocalFeatures) -> Binary:
        return rasmk(features.descriptors, features.counts, self._codebook).binarised()

    def _of_query(self, features: LocalFeatures) -> Binary:
        multiple = min(MULTIPLE.get(self.kernel, 1), self._codebook.words)
        return asmk(features.descriptors, self._codebook, multiple=multiple).binarised()


def check_codebook(codebook: Codebook, profile: Profile, name: str) -> None:
    """Raise ProfileMismatch unless the codebook fits the served local descriptors."""
    learned = str(codebook.card.get("locals_sha256", ""))
    if learned == profile.locals_sha256 and codebook.dimension == profile.sizes.local:
        return
    there = f"SHA-256 {learned[:12]}" if learned else "SHA-256 unknown"
    raise ProfileMismatch(
        f"the codebook {name} was trained on local descriptors of other models ({there}, {codebook.dimension} values) "
        f"than are served now (SHA-256 {profile.locals_sha256[:12]}, {profile.sizes.local} values); "
        "train it again with `landseer codebook`"
    )
