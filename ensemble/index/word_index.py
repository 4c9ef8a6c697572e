"""The index of visual words: a first search, and a filter, over an inverted file in memory.

A `WordSource` says which words a picture has: `index.deep_words` and `index.keypoint_words`. All work runs on separate
threads; searches run during changes, and see all of a change or nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.index.live_index import Hits
from landseer.ensemble.index.selection import Selecting
from landseer.ensemble.store.record import Record
from landseer.ensemble.workers import Workers

Keys = NDArray[np.int64]


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


class WordSource(Protocol):
    """Where words come from."""

    fingerprint: str
    """Of the codebook."""
    words: int
    """K, of the codebook."""
    bits: int
    """Of a code."""
    kernel: str
    """A key of `KERNELS`."""

    def of_record(self, record: Record) -> Binary | None:
        """Return the words of a picture that was stored; None without any."""

    def stored(self, stop: threading.Event, *, after: int = 0) -> Iterator[tuple[Keys, list[Binary]]]:
        """Yield keys [n] above `after` and words of the pictures in the store that have any, until `stop` is set.

        Words of smaller keys that the store lacks may be among them.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedWords:
    """Words in files."""

    folder: Path
    sequence: int
    """Of the store, up to which they go."""
    living: Keys
    """Keys of the pictures up to that which the store still has, ascending."""


class WordIndex:
    """An asynchronous index of ASMK* over an inverted file (R-ASMK* for pictures with regions)."""

    def __init__(self, source: WordSource, *, threads: int) -> None:
        self._source = source
        self._workers = Workers("words", threads=threads)
        # Separate threads, so that searches do not queue behind a bulk upload.
        self._bulk = Workers("words-bulk", threads=threads, queue=4096)
        # One search among many pictures uses all of these threads.
        self._threads = threads
        self._scans = ThreadPoolExecutor(threads, thread_name_prefix="landseer-words-scan")
        self._file = self._empty()
        self._newest = self._changes = self._saved = 0

    @property
    def bits(self) -> int:
        """Of a code."""
        return self._source.bits

    @property
    def changed(self) -> int:
        """Pictures that were added or removed since words were saved in files, or are not in those loaded."""
        return self._changes - self._saved

    @property
    def stats(self) -> WordsStats:
        """Current figures."""
        file, source = self._file, self._source
        return WordsStats(
            codebook=source.fingerprint,
            words=source.words,
            kernel=source.kernel,
            pictures=file.size,
            bytes=file.nbytes,
        )

    async def search(self, query: Binary, k: int, selection: Selecting | None = None) -> Hits:
        """Return the k most similar pictures that share a word with the query; ties go to the lower key.

        selection: which pictures may be found; None for all. It is asked after it is settled which pictures are
        searched, and changes no score.

        Scores are from 0 to 1: scores of kernels that are not normalised are divided by the number of the query's
        words, which does not change the order.
        """
        keys, scores = await self._workers.run(self._file.search, query, k, selection)
        divisor = 1 if self._file.kernel.normalised else max(1, len(query.words))
        return Hits(keys=keys, scores=(scores / divisor).astype(np.float32))

    async def sharing(self, query: Binary, keys: Keys, *, least: int) -> NDArray[np.bool_]:
        """Return which of the pictures under keys [C] share at least `least` words with the query: [C]."""
        found = await self._workers.run(self._file.sharing, query, least=least)
        return np.isin(keys, found)

    async def load(self, stop: threading.Event, saved: SavedWords | None = None) -> None:
        """Load the pictures of the store and switch to them; the previous ones are used until then.

        saved: words in files, which are mapped; only those of other pictures are read from the store. ValueError if
        they are not what `save` wrote.

        Setting `stop` ends it soon, with a partial index. If the caller is cancelled, `close` waits for the thread,
        which reads the store.
        """
        self._file, self._newest, self._changes = await self._bulk.run(self._built, stop, saved)
        self._saved = 0

    def save(self, folder: Path, stop: threading.Event | None = None) -> tuple[int, Callable[[Path], None]]:
        """Write all words into an empty folder. Returns up to which key they go, and a function.

        That takes them from the folder where the files are then, so that they take no memory of the process any more;
        the words of changes that were made meanwhile stay in memory. OSError; SavingStopped soon after `stop` is set.
        """
        while True:
            file, newest, changes = self._file, self._newest, self._changes
            # `load` may put another one in its place meanwhile.
            if self._file is file:
                break
        saved = file.save(folder, stop)

        def settle(there: Path) -> None:
            file.move(saved, there)
            if self._file is file:
                self._saved = changes

        return newest, settle

    async def apply(self, keys: Sequence[int], records: Sequence[Record], removed: Sequence[int]) -> None:
        """Add the words of pictures under keys, where there are any, then remove the removed keys."""
        await self._bulk.run(self._change, keys, records, removed)

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._workers.close()
        self._bulk.close()
        self._scans.shutdown()

    def _empty(self) -> InvertedFile:
        source = self._source
        return InvertedFile(
            words=source.words,
            bits=source.bits,
            kernel=KERNELS[source.kernel],
            pool=self._scans,
            threads=self._threads,
        )

    def _built(self, stop: threading.Event, saved: SavedWords | None) -> tuple[InvertedFile, int, int]:
        """Return the words, their largest key, and how many are not in files."""
        file = self._empty()
        file.prepare()
        newest, added = 0, 0
        if saved is not None:
            file.load(saved.folder, saved.living)
            newest = saved.sequence
        for keys, pictures in self._source.stored(stop, after=newest):
            file.add(keys, pictures)
            newest, added = max(newest, int(keys.max(initial=0))), added + len(keys)
        return file, newest, added

    def _change(self, keys: Sequence[int], records: Sequence[Record], removed: Sequence[int]) -> None:
        words = {key: self._source.of_record(record) for key, record in zip(keys, records, strict=True)}
        there = {key: some for key, some in words.items() if some is not None}
        if there:
            self._file.add(np.array(list(there), np.int64), list(there.values()))
        if removed:
            self._file.remove(np.array(removed, np.int64))
        # After the words of these keys are there: what is saved has all words up to the newest key.
        self._newest = max([self._newest, *keys])
        self._changes += len(there) + len(removed)
