"""The contenders of the serving benchmark that run in process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landseer.ensemble.index.engines import ENGINES as INDEX_ENGINES
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.ops.backend.inprocess import InProcessBackbone, Vector
from landseer.ops.bench.pictures import Picture

TOP_K = 10


class DirectDescribe(InProcessBackbone):
    """Only the graph. For one thread."""

    def __call__(self, picture: Picture) -> Vector:
        """Return the descriptor [D]."""
        return self.describe(picture.pixels)


class DirectSearch:
    """Decoding, the graph and exact search, one after the other. For one thread."""

    def __init__(
        self, graph: InProcessBackbone, vectors: Sequence[Vector], ids: Sequence[str], profile: Profile
    ) -> None:
        self._graph, self._ids, self._profile = graph, ids, profile
        self._index = INDEX_ENGINES["faiss-exact"](profile.sizes.channels)
        self._index.add(np.arange(len(ids)), np.stack(vectors))

    def __call__(self, picture: Picture) -> list[str]:
        """Return the ids of the nearest pictures, best first."""
        vector = self._graph.describe(prepare(picture.data, profile=self._profile).pixels[None])
        keys, _ = self._index.search(vector[None], TOP_K)
        return [self._ids[key] for key in keys[0]]
