"""Co-attention with other numbers than in the exported graphs, computed by the torch modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.inference.profile import Profile
from landseer.export.models.cluster import Clustering
from landseer.export.models.pooling import Projection, masked_gem
from landseer.export.training.attending import Whole
from landseer.ops.evaluate.arrays import CLUSTERS, FEATURES, NORMS, QUERY_VECTOR, SCALES
from landseer.ops.evaluate.coattention import TorchCoattention
from landseer.ops.evaluate.picture_arrays import PictureArrays, Score

Read = Callable[[str], Iterator[NDArray[Any]]]
TEMPERATURE = 10.0
"""Of the paper and of the exported graph."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of co-attention. The defaults are the paper's, and those of the exported graphs."""

    features: int = 500
    """N, the strongest local features of a picture."""
    clusters: int = 10
    """K."""
    scales: tuple[float, ...] = ()
    """Use only features at these scales, or the single strongest one if there are none; empty for all scales."""
    temperature: float = TEMPERATURE
    """T of the softmax."""
    p: float = 3.0
    """p of GeM, in each cluster and over the query."""


class VariedArrays:
    """Other arrays, but with query vectors and clusters recomputed from the local features."""

    def __init__(self, side: PictureArrays, profile: Profile, reduction: Projection, numbers: Numbers) -> None:
        """reduction: from local features to co-attention vectors."""
        self._side, self._profile, self._reduction, self._numbers = side, profile, reduction, numbers
        self._clusters: list[NDArray[np.float16]] | None = None

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        return self._pooled(self._side.of_queries) if name == QUERY_VECTOR else self._side.of_queries(name)

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        read = self._side.of_references
        if name == QUERY_VECTOR:
            return self._pooled(read)
        if name != CLUSTERS:
            return read(name)
        if self._clusters is None:
            parts = zip(read(FEATURES), read(NORMS), self._kept(read), strict=True)
            self._clusters = [self._clustered(*rows) for rows in parts]
        return iter(self._clusters)

    def features_each(self) -> float:
        """Return the mean number of local features per reference."""
        return float(np.mean([len(rows) for rows in self._kept(self._side.of_references)]))

    def regions(self) -> Iterator[Sequence[NDArray[np.float16]]]:
        """See PictureArrays."""
        return self._side.regions()

    def has_patches(self) -> bool:
        """See PictureArrays."""
        return self._side.has_patches()

    def codebook(self, words: int) -> Codebook:
        """See PictureArrays."""
        return self._side.codebook(words)

    def coattention(self) -> Score:
        """See PictureArrays."""
        return TorchCoattention(self._profile, temperature=self._numbers.temperature)

    coattention_of_all = coattention

    def reduced(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """See PictureArrays."""
        return self._side.reduced(features[: self._numbers.features])

    def _pooled(self, read: Read) -> Iterator[NDArray[np.float32]]:
        return (self._query(*rows) for rows in zip(read(FEATURES), self._kept(read), strict=True))

    def _kept(self, read: Read) -> Iterator[NDArray[np.int64]]:
        """Yield the features of each picture that are used."""
        most, scales = self._numbers.features, np.array(self._numbers.scales, np.float32)
        if not len(scales):
            return (np.arange(min(most, len(norms))) for norms in read(NORMS))
        there = (np.isclose(found[:most, None], scales).any(axis=1) for found in read(SCALES))
        return (np.flatnonzero(some) if some.any() else np.zeros(1, np.int64) for some in there)

    def _query(self, features: NDArray[Any], kept: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = torch.from_numpy(features[kept].astype(np.float32))
        with torch.inference_mode():
            pooled = masked_gem(rows[None], torch.ones(1, len(rows)), self._numbers.p)
            return np.asarray(self._reduction(pooled)[0].numpy(), np.float32)

    def _clustered(self, features: NDArray[Any], norms: NDArray[Any], kept: NDArray[np.int64]) -> NDArray[np.float16]:
        rows = torch.from_numpy(features[kept].astype(np.float32))
        sizes = dataclasses.replace(self._profile.sizes, locals=len(rows), clusters=self._numbers.clusters)
        module = Clustering(sizes=sizes, reduction=self._reduction, p=self._numbers.p)
        strongest = torch.from_numpy(np.array(norms[kept], np.float32))[None]
        with torch.inference_mode():
            found = module(rows[None], torch.tensor([[len(rows)]], dtype=torch.int32), strongest)
        return np.asarray(found.clusters[0, : int(found.cluster_count)].numpy(), np.float16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Unreduced:
    """What co-attention's vectors are reduced from, of Q queries and N references."""

    queries: Sequence[NDArray[np.float32]]
    """[C] each."""
    references: Sequence[NDArray[np.float32]]
    """The references' own query vectors, [C] each."""
    clusters: Sequence[NDArray[np.float16]]
    """[k, C] each."""


def unreduced(side: PictureArrays, profile: Profile, own: Sequence[int | None]) -> Unreduced:
    """Pool the pictures as the exported graphs do, once for all reductions.

    own: the row of each query among the references; None if it is not there.
    """
    channels = profile.sizes.channels
    whole = VariedArrays(side, profile, Whole(torch.zeros(channels), torch.eye(channels)), Numbers())
    references = list(whole.of_references(QUERY_VECTOR))
    known = [None if row is None else references[row] for row in own]
    if all(one is not None for one in known):
        queries = [one for one in known if one is not None]
    else:
        queries = list(whole.of_queries(QUERY_VECTOR))
    return Unreduced(queries=queries, references=references, clusters=list(whole.of_references(CLUSTERS)))


class ReducedArrays(VariedArrays):
    """Other arrays, but with query vectors and clusters by another reduction than exported."""

    def __init__(self, side: PictureArrays, profile: Profile, reduction: Projection, pooled: Unreduced) -> None:
        super().__init__(side, profile, reduction, Numbers())
        self._unreduced = pooled

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        return self._reduced(self._unreduced.queries) if name == QUERY_VECTOR else super().of_queries(name)

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        if name == QUERY_VECTOR:
            return self._reduced(self._unreduced.references)
        if name == CLUSTERS:
            return (one.astype(np.float16) for one in self._reduced(self._unreduced.clusters))
        return super().of_references(name)

    def _reduced(self, vectors: Sequence[NDArray[Any]]) -> Iterator[NDArray[np.float32]]:
        with torch.inference_mode():
            for one in vectors:
                yield np.asarray(self._reduction(torch.from_numpy(one.astype(np.float32))).numpy(), np.float32)
