"""Visual words of all entries of a generated store, written as the server writes its own, without their keypoints.

An entry with keypoints has their words. Another one has words of random keypoints of real pictures, so that posting
lists are as long as among real pictures. Keypoints of all of a million entries would take 24 GiB; their words take 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.inverted_file import LISTED
from landseer.ensemble.asmk.postings import MOST, Keys, Postings, merged
from landseer.ensemble.index.choosing import Saved
from landseer.ensemble.index.collection import KEYPOINT_KERNEL
from landseer.ensemble.index.keypoint_words import KeypointWords
from landseer.ensemble.index.versions import WORDS, Versions
from landseer.ensemble.index.word_files import SETTING, WordFiles
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.keypoints.compact import BITS, STRONGEST, aggregated
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.store.store import Store
from landseer.ops.bench.generated_features import FeaturePool

WORDS_BYTES = 8_500
"""Of an entry, at most."""


def write_words(store: Store, folder: Path, pool: FeaturePool, *, seed: int, progress: Callable[[int], None]) -> None:
    """Write a version of the words of all entries of an open store, in its folder.

    progress: called with the number of further entries. Needs memory for `MOST` entries at a time, not for all.
    """
    source = KeypointWords(shipped_codebook(), store.keypoints, kernel=KEYPOINT_KERNEL)
    index, writing = WordIndex(source, threads=1), _Writing(store, pool, source.words, seed)
    try:
        files = WordFiles(store, index, versions=Versions(folder, WORDS), damaged=lambda: None)
        files.write(SETTING, partial(writing.fill, progress))
    finally:
        index.close()


@dataclass(frozen=True)
class _Writing:
    store: Store
    pool: FeaturePool
    words: int
    seed: int

    def fill(self, progress: Callable[[int], None], folder: Path) -> Saved:
        """Write the words of all entries into a folder, as `InvertedFile.save` does, segment by segment."""
        sequence = self.store.stats().sequence
        keys = self.store.vectors.keys(upto=sequence)
        for place, start in enumerate(range(0, len(keys), MOST)):
            parts = []
            for first in range(start, min(start + MOST, len(keys)), LISTED):
                some = keys[first : min(first + LISTED, start + MOST)]
                parts.append(Postings.of(some, self._pictures(some), words=self.words, bits=BITS))
                progress(len(some))
            merged(parts, [np.ones(len(part.keys), np.bool_) for part in parts]).save(folder, str(place))
        return Saved(sequence=sequence, size=len(keys), dimension=BITS)

    def _pictures(self, keys: Keys) -> list[Binary]:
        stored = zip(keys.tolist(), self.store.keypoints.read(keys.tolist()), strict=True)
        return [self._random(key) if found is None else found.searched() for key, found in stored]

    def _random(self, entry: int) -> Binary:
        known = self.pool.keypoints
        rows = np.random.default_rng((self.seed, 2, entry)).integers(len(known), size=STRONGEST)
        return aggregated(known.words[rows], known.codes[rows])
