"""Spatial verification of a short list by the keypoints in the store.

A hundred candidates take about 50 ms on one core. They are verified in small chunks on separate threads: the event loop
is not blocked, searches take turns, and the remaining chunks are dropped when the caller cancels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.store.keypoints import StoredKeypoints
from landseer.ensemble.verify.evidence import Evidence, evidence_of
from landseer.ensemble.verify.fast_spatial import fit
from landseer.ensemble.verify.matching import matches_of
from landseer.ensemble.workers import Workers

CHUNK = 10
"""Candidates verified per task."""


class KeypointVerifier:
    """Verifies candidates against the keypoints of a store."""

    def __init__(self, stored: StoredKeypoints, *, threads: int) -> None:
        self._stored = stored
        self._threads = threads
        self._workers = Workers("verify-keypoints", threads=threads)

    async def evidence(self, query: QueryKeypoints, keys: NDArray[np.int64]) -> Mapping[int, Evidence]:
        """Return what was found in the pictures under keys [C], by key, without pictures that have no keypoints.

        LocalFeaturesMissing if none has any; Overloaded.
        """
        chunks = [keys[first : first + CHUNK].tolist() for first in range(0, len(keys), CHUNK)]
        lanes = [self._some(query, chunks[lane :: self._threads]) for lane in range(self._threads)]
        found = dict(pair for lane in await asyncio.gather(*lanes) for pair in lane)
        if len(keys) and not found:
            raise LocalFeaturesMissing(
                f"none of the {len(keys)} candidates has keypoints; index the pictures again with this server"
            )
        return found

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._workers.close()

    async def _some(self, query: QueryKeypoints, chunks: Sequence[Sequence[int]]) -> list[tuple[int, Evidence]]:
        """Verify chunks one after the other, so that a search has at most one chunk queued per thread."""
        return [pair for chunk in chunks for pair in await self._workers.run(self._chunk, query, chunk)]

    def _chunk(self, query: QueryKeypoints, keys: Sequence[int]) -> list[tuple[int, Evidence]]:
        found = zip(keys, self._stored.read(keys), strict=True)
        return [
            (key, evidence_of(query.keypoints, there, fit(query.keypoints, there, matches_of(query, there))))
            for key, there in found
            if there is not None
        ]
