"""The visual words of all pictures, derived from the local features in the store: a first search, and a filter.

Which words a picture has is computed once, when it is indexed or when they are first wanted, at a codebook's cost (3 ms
for 1,024 words, 200 ms for 65,536), and kept in the store. All of it runs on threads of its own; searches run beside
changes, and see all of a change or nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary, asmk, rasmk
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.errors import ProfileMismatch, StoreFull
from landseer.ensemble.index.live_index import Hits
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.store import Store
from landseer.ensemble.workers import Workers

log = logging.getLogger(__name__)
Keys = NDArray[np.int64]
BATCH = 256
"""Pictures whose words are computed at a time: 65 MB of local features."""
MULTIPLE = {"how": 5, "how-idf": 5}
"""Words of a feature of the query, by kernel; 1 for the others, and always for a picture that is indexed."""


@dataclass(frozen=True, kw_only=True)
class WordsStats:
    """Figures of the visual words of a server."""

    codebook: str
    """Its fingerprint."""
    words: int
    kernel: str
    pictures: int
    """How many can be found by their words."""
    bytes: int
    """Memory of the inverted file."""


class WordIndex:
    """ASMK* over an inverted file (R-ASMK* of pictures that have regions), with its asynchronous face."""

    def __init__(self, codebook: Codebook, *, kernel: str, threads: int) -> None:
        """kernel: a key of `KERNELS`."""
        self._codebook, self._kernel = codebook, kernel
        self._workers = Workers("words", threads=threads)
        # Threads of its own, so that no search stands in line behind a bulk upload.
        self._bulk = Workers("words-bulk", threads=threads, queue=4096)
        self._file = self._empty()

    @property
    def stats(self) -> WordsStats:
        """What it holds now."""
        file = self._file
        return WordsStats(
            codebook=self._codebook.fingerprint,
            words=self._codebook.words,
            kernel=self._kernel,
            pictures=file.size,
            bytes=file.nbytes,
        )

    async def of_picture(self, features: LocalFeatures) -> Binary:
        """Return the words of a picture to be indexed: of its features as the store keeps them."""
        return await self._bulk.run(lambda: self._of_picture(unpack_features(pack_features(features))))

    async def of_query(self, features: LocalFeatures) -> Binary:
        """Return the words of a query: of the whole of it."""
        return await self._workers.run(self._of_query, features.whole)

    async def search(self, query: Binary, k: int) -> Hits:
        """Return the k most alike of the pictures that share a word with the query, of equal ones the lower key.

        Scores are from 0 to 1: without a norm of their own they are divided by the number of the query's words, which
        changes no order.
        """
        keys, scores = await self._workers.run(self._file.search, query, k)
        divisor = 1 if self._file.kernel.normalised else max(1, len(query.words))
        return Hits(keys=keys, scores=(scores / divisor).astype(np.float32))

    async def sharing(self, query: Binary, keys: Keys, *, least: int) -> NDArray[np.bool_]:
        """Return which of the pictures under keys [C] share at least so many words with the query: [C]."""
        found = await self._workers.run(self._file.sharing, query, least=least)
        return np.isin(keys, found)

    async def load(self, store: Store, stop: threading.Event) -> None:
        """Hold the pictures of a store, and no others, from then on; what was there serves until then.

        Words that the store lacks are computed and put there. Once `stop` is set it ends soon, and holds only some.
        """
        self._file = await asyncio.to_thread(self._built, store, stop)

    async def apply(self, keys: Sequence[int], words: Sequence[Binary | None], removed: Sequence[int]) -> None:
        """Take in the words of pictures under keys, where they have any, then forget those removed."""
        await self._bulk.run(self._change, keys, words, removed)

    def close(self) -> None:
        """Drop what waits and wait for what runs."""
        self._workers.close()
        self._bulk.close()

    def _empty(self) -> InvertedFile:
        book, kernel = self._codebook, KERNELS[self._kernel]
        return InvertedFile(words=book.words, bits=book.dimension, kernel=kernel)

    def _of_picture(self, features: LocalFeatures) -> Binary:
        return rasmk(features.descriptors, features.counts, self._codebook).binarised()

    def _of_query(self, features: LocalFeatures) -> Binary:
        multiple = min(MULTIPLE.get(self._kernel, 1), self._codebook.words)
        return asmk(features.descriptors, self._codebook, multiple=multiple).binarised()

    def _built(self, store: Store, stop: threading.Event) -> InvertedFile:
        file = self._empty()
        store.words.stamp(self._codebook.fingerprint)
        for keys, pictures in store.words.scan():
            file.add(keys, pictures)
            if stop.is_set():
                return file
        missing = store.words.missing()
        for first in range(0, len(missing), BATCH):
            if stop.is_set():
                return file
            self._fill(store, file, missing[first : first + BATCH])
            log.info("visual words: computed for %s of %s pictures", f"{first + BATCH:,}", f"{len(missing):,}")
        return file

    def _fill(self, store: Store, file: InvertedFile, missing: Sequence[int]) -> None:
        """Compute the words of pictures, hold them, and keep them in the store if it has room."""
        found = zip(missing, store.locals.read(missing), strict=True)
        words = {key: self._of_picture(features) for key, features in found if features is not None}
        file.add(np.array(list(words), np.int64), list(words.values()))
        try:
            store.words.add(list(words), list(words.values()))
        except StoreFull as error:
            log.warning("visual words are computed again at each start: %s", error)

    def _change(self, keys: Sequence[int], words: Sequence[Binary | None], removed: Sequence[int]) -> None:
        there = [(key, some) for key, some in zip(keys, words, strict=True) if some is not None]
        if there:
            self._file.add(np.array([key for key, _ in there], np.int64), [some for _, some in there])
        if removed:
            self._file.remove(np.array(removed, np.int64))


def check_codebook(codebook: Codebook, profile: Profile, name: str) -> None:
    """Raise ProfileMismatch unless the words are of the local descriptors that are served."""
    learned = str(codebook.card.get("locals_sha256", ""))
    if learned == profile.locals_sha256 and codebook.dimension == profile.sizes.local:
        return
    there = f"SHA-256 {learned[:12]}" if learned else "it does not say which"
    raise ProfileMismatch(
        f"the words of {name} were learned from the local descriptors of other models ({there}, "
        f"{codebook.dimension} values) than are served now (SHA-256 {profile.locals_sha256[:12]}, "
        f"{profile.sizes.local} values); learn them again by `landseer codebook`"
    )
