"""Co-attention with other numbers than the exported graphs': by the torch modules behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.ensemble.profile import Profile
from landseer.ensemble.regional.codebook import Codebook
from landseer.export.models.cluster import Clustering
from landseer.export.models.pooling import Projection, masked_gem
from landseer.ops.evaluate.arrays import CLUSTERS, FEATURES, NORMS, QUERY_VECTOR
from landseer.ops.evaluate.coattention import TorchCoattention
from landseer.ops.evaluate.side import LocalSide, Score

TEMPERATURE = 10.0
"""The paper's; the graph's."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Of co-attention. The defaults are the paper's, which the graphs are exported with."""

    features: int = 500
    """N, the strongest local features of a picture."""
    clusters: int = 10
    """K."""
    temperature: float = TEMPERATURE
    """T, before the softmax."""
    p: float = 3.0
    """Of GeM, in each cluster and over the query."""


class VariedSide:
    """What another side has, but query vectors and clusters made anew from the local features."""

    def __init__(self, side: LocalSide, profile: Profile, reduction: Projection, numbers: Numbers) -> None:
        """reduction: of local features to co-attention vectors."""
        self._side, self._profile, self._reduction, self._numbers = side, profile, reduction, numbers
        self._made: dict[str, list[NDArray[Any]]] = {}

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """See LocalSide."""
        if name != QUERY_VECTOR:
            return self._side.of_queries(name)
        if name not in self._made:
            self._made[name] = [self._query(features) for features in self._side.of_queries(FEATURES)]
        return iter(self._made[name])

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """See LocalSide."""
        if name != CLUSTERS:
            return self._side.of_references(name)
        if name not in self._made:
            pairs = zip(self._side.of_references(FEATURES), self._side.of_references(NORMS), strict=True)
            self._made[name] = [self._clustered(features, norms) for features, norms in pairs]
        return iter(self._made[name])

    def regions(self) -> Iterator[Sequence[NDArray[np.float16]]]:
        """See LocalSide."""
        return self._side.regions()

    def codebook(self, words: int) -> Codebook:
        """See LocalSide."""
        return self._side.codebook(words)

    def coattention(self) -> Score:
        """See LocalSide."""
        return TorchCoattention(self._profile, temperature=self._numbers.temperature)

    coattention_of_all = coattention

    def reduced(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """See LocalSide."""
        return self._side.reduced(features[: self._numbers.features])

    def _query(self, features: NDArray[Any]) -> NDArray[np.float32]:
        rows = self._strongest(features)
        with torch.inference_mode():
            pooled = masked_gem(rows[None], torch.ones(1, len(rows)), self._numbers.p)
            return np.asarray(self._reduction(pooled)[0].numpy(), np.float32)

    def _clustered(self, features: NDArray[Any], norms: NDArray[Any]) -> NDArray[np.float16]:
        rows = self._strongest(features)
        sizes = dataclasses.replace(self._profile.sizes, locals=len(rows), clusters=self._numbers.clusters)
        module = Clustering(sizes=sizes, reduction=self._reduction, p=self._numbers.p)
        strongest = torch.from_numpy(np.array(norms[: len(rows)], np.float32))[None]
        with torch.inference_mode():
            found = module(rows[None], torch.tensor([[len(rows)]], dtype=torch.int32), strongest)
        return np.asarray(found.clusters[0, : int(found.cluster_count)].numpy(), np.float16)

    def _strongest(self, features: NDArray[Any]) -> Tensor:
        return torch.from_numpy(features[: self._numbers.features].astype(np.float32))
