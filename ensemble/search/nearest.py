"""Search the index by a vector, among the pictures that the filter lets through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.live_index import Hits
from landseer.ensemble.search.resolved_query import ResolvedQuery
from landseer.ensemble.search.stages import Stages


async def nearest(
    collection: Collection, stages: Stages, vector: NDArray[np.float32], wanted: int, query: ResolvedQuery
) -> Hits:
    """Return the `wanted` pictures nearest to a vector, float32 [D]. IndexUnavailable, Overloaded.

    If the index looked at a part of the pictures only, the answer says so.
    """
    hits = await collection.search(vector, wanted, query.selection)
    if hits.lacks:
        stages.degrade("search", hits.lacks)
    return hits
