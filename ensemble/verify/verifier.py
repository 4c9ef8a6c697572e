"""Spatial verification of a short list, with the local features in the store (D2R).

A candidate takes 1 to 2 ms on one thread (500 features on both sides), a hundred candidates as long as the rest of the
search. So they are verified in small chunks on separate threads: the event loop is not blocked, searches take turns,
and the remaining chunks are dropped when the deadline passes or the caller cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.record_store import FeatureReader
from landseer.ensemble.verify.chunks import in_chunks
from landseer.ensemble.verify.verification import Located, VerificationSettings, verify
from landseer.ensemble.workers import Workers

SETTINGS = VerificationSettings(residual=20.0, mutual=True, least=10)
"""Chosen on photographs of fruit and vegetables, where D2R's settings make the first hit worse:
docs/research/local-features.md.

Features lie 32 pixels apart at scale 1, so 10 pixels are often less than a feature's own uncertainty.
"""
MISSING = -1
"""Inliers of a candidate without local features."""
Inliers = NDArray[np.int64]


class Verifier:
    """Verifies candidates against the local features of a store."""

    def __init__(self, locals: FeatureReader[LocalFeatures], *, threads: int) -> None:
        self._locals = locals
        self._threads = threads
        self._workers = Workers("verify", threads=threads)

    async def inliers(self, query: Located, keys: NDArray[np.int64]) -> Inliers:
        """Return the inliers of the pictures under keys [C]: [C], -1 for pictures without local features.

        LocalFeaturesMissing if none has any; Overloaded.
        """
        counted = await in_chunks(self._workers, partial(self._chunk, query), keys, threads=self._threads)
        found = np.array([counted[key] for key in keys.tolist()], np.int64)
        if len(found) and (found == MISSING).all():
            raise LocalFeaturesMissing(
                f"none of the {len(found)} candidates has local features; index the pictures again with this server"
            )
        return found

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._workers.close()

    def _chunk(self, query: Located, keys: Sequence[int]) -> list[tuple[int, int]]:
        found = zip(keys, self._locals.read(keys), strict=True)
        there = {key: located(features) for key, features in found if features is not None}
        counts = dict(zip(there, verify(query, list(there.values()), SETTINGS).tolist(), strict=True))
        return [(key, counts.get(key, MISSING)) for key in keys]


def located(features: LocalFeatures) -> Located:
    """Return the features to match: those of the whole picture."""
    whole = features.whole
    return Located(features=whole.descriptors, positions=whole.positions)
