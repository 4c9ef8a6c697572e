"""The index of visual words, derived from the local features in the store: a first search, and a filter.

The words of a picture are computed once, when it is indexed or when words are first used, and kept in the store; a
picture takes 3 ms with 1,024 words, 200 ms with 65,536. All work runs on separate threads; searches run during changes,
and see all of a change or nothing.
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
"""Words assigned to each feature of a query, by kernel; 1 for the others, and for indexed pictures."""


@dataclass(frozen=True, kw_only=True)
class WordsStats:
    """Figures of a server's visual words."""

    codebook: str
    """Its fingerprint."""
    words: int
    kernel: str
    pictures: int
    """Pictures that can be found by their words."""
    bytes: int
    """Memory of the inverted file."""


class WordIndex:
    """An asynchronous index of ASMK* over an inverted file (R-ASMK* for pictures with regions)."""

    def __init__(self, codebook: Codebook, *, kernel: str, threads: int) -> None:
        """kernel: a key of `KERNELS`."""
        self._codebook, self._kernel = codebook, kernel
        self._workers = Workers("words", threads=threads)
        # Separate threads, so that searches do not queue behind a bulk upload.
        self._bulk = Workers("words-bulk", threads=threads, queue=4096)
        self._file = self._empty()

    @property
    def stats(self) -> WordsStats:
        """Current figures."""
        file = self._file
        return WordsStats(
            codebook=self._codebook.fingerprint,
            words=self._codebook.words,
            kernel=self._kernel,
            pictures=file.size,
            bytes=file.nbytes,
        )

    async def of_picture(self, features: LocalFeatures) -> Binary:
        """Return the words of a picture to index, from its features as the store keeps them."""
        return await self._bulk.run(lambda: self._of_picture(unpack_features(pack_features(features))))

    async def of_query(self, features: LocalFeatures) -> Binary:
        """Return the words of a query, from the features of the whole picture."""
        return await self._workers.run(self._of_query, features.whole)

    async def search(self, query: Binary, k: int) -> Hits:
        """Return the k most similar pictures that share a word with the query; ties go to the lower key.

        Scores are from 0 to 1: scores of kernels that are not normalised are divided by the number of the query's
        words, which does not change the order.
        """
        keys, scores = await self._workers.run(self._file.search, query, k)
        divisor = 1 if self._file.kernel.normalised else max(1, len(query.words))
        return Hits(keys=keys, scores=(scores / divisor).astype(np.float32))

    async def sharing(self, query: Binary, keys: Keys, *, least: int) -> NDArray[np.bool_]:
        """Return which of the pictures under keys [C] share at least `least` words with the query: [C]."""
        found = await self._workers.run(self._file.sharing, query, least=least)
        return np.isin(keys, found)

    async def load(self, store: Store, stop: threading.Event) -> None:
        """Load the pictures of a store and switch to them; the previous ones are used until then.

        Words missing from the store are computed and written there. Setting `stop` ends it soon, with a partial index.
        """
        self._file = await asyncio.to_thread(self._built, store, stop)

    async def apply(self, keys: Sequence[int], words: Sequence[Binary | None], removed: Sequence[int]) -> None:
        """Add the words of pictures under keys, where there are any, then remove the removed keys."""
        await self._bulk.run(self._change, keys, words, removed)

    def close(self) -> None:
        """Drop queued work and wait for running work."""
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
        """Compute the words of pictures, index them, and write them to the store if it has room."""
        found = zip(missing, store.locals.read(missing), strict=True)
        words = {key: self._of_picture(features) for key, features in found if features is not None}
        file.add(np.array(list(words), np.int64), list(words.values()))
        try:
            store.words.add(list(words), list(words.values()))
        except StoreFull as error:
            log.warning("visual words cannot be stored and will be computed again at each start: %s", error)

    def _change(self, keys: Sequence[int], words: Sequence[Binary | None], removed: Sequence[int]) -> None:
        there = [(key, some) for key, some in zip(keys, words, strict=True) if some is not None]
        if there:
            self._file.add(np.array([key for key, _ in there], np.int64), [some for _, some in there])
        if removed:
            self._file.remove(np.array(removed, np.int64))


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
