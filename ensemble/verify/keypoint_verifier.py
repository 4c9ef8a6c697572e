"""Spatial verification of a short list by the keypoints in the store.

A hundred candidates take about 80 ms on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.store.keypoints import StoredKeypoints
from landseer.ensemble.verify.chunks import in_chunks
from landseer.ensemble.verify.evidence import Evidence, evidence_of
from landseer.ensemble.verify.fast_spatial import fit
from landseer.ensemble.verify.matching import matches_of
from landseer.ensemble.workers import Workers


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
        found = await in_chunks(self._workers, partial(self._chunk, query), keys, threads=self._threads)
        if len(keys) and not found:
            raise LocalFeaturesMissing(
                f"none of the {len(keys)} candidates has keypoints; index the pictures again with this server"
            )
        return found

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self._workers.close()

    def _chunk(self, query: QueryKeypoints, keys: Sequence[int]) -> list[tuple[int, Evidence]]:
        found = zip(keys, self._stored.read(keys), strict=True)
        return [
            (key, evidence_of(query.keypoints, there, fit(query.keypoints, there, matches_of(query, there))))
            for key, there in found
            if there is not None
        ]
