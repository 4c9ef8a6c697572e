"""Visual words of keypoints: the store keeps them with the keypoints, so nothing is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.record_store import FeatureReader

BATCH = 256
"""Pictures read at a time: 6 MB."""


class KeypointWords:
    """ASMK* of the keypoints in a store."""

    def __init__(self, codebook: Codebook, stored: FeatureReader[CompactKeypoints], *, kernel: str) -> None:
        self.fingerprint, self.words, self.bits, self.kernel = codebook.fingerprint, codebook.words, BITS, kernel
        self._stored = stored

    def of_record(self, record: Record) -> Binary | None:
        """Return the words of a picture that was stored."""
        return None if record.keypoints is None else record.keypoints.searched()

    def stored(self, stop: threading.Event, *, after: int = 0) -> Iterator[tuple[NDArray[np.int64], list[Binary]]]:
        """Yield the words of the pictures in the store of keys above `after`."""
        for keys, pictures in self._stored.scan(batch=BATCH, after=after):
            if stop.is_set():
                return
            yield keys, [picture.searched() for picture in pictures]
