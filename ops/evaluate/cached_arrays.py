"""`PictureArrays` of a data set in the cache, with the graphs of a repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.inference.profile import Profile
from landseer.ops.evaluate.arrays import LOCALS
from landseer.ops.evaluate.cache import ArrayReader
from landseer.ops.evaluate.coattention import GraphCoattention, TorchCoattention, reduction_of
from landseer.ops.evaluate.codebooks import CodebooksBySize
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.picture_arrays import Score


class CachedPictureArrays:
    """Reads arrays from the cache on demand."""

    def __init__(
        self,
        repository: Path,
        profile: Profile,
        arrays: ArrayReader,
        dataset: Dataset,
        *,
        regions: Mapping[Path, Sequence[Shot]],
        codebooks: CodebooksBySize,
    ) -> None:
        """regions: of each reference, without the whole picture; arrays: of all pictures and regions."""
        self._repository, self._profile, self._arrays = repository, profile, arrays
        self._dataset, self._regions, self._codebooks = dataset, regions, codebooks

    def of_queries(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        return self._arrays.read(name, [query.shot for query in self._dataset.queries])

    def of_references(self, name: str) -> Iterator[NDArray[Any]]:
        """See PictureArrays."""
        return self._arrays.read(name, [Shot(path=path) for path in self._dataset.references])

    def regions(self) -> Iterator[Sequence[NDArray[np.float16]]]:
        """See PictureArrays."""
        of = [self._regions.get(path, ()) for path in self._dataset.references]
        found = self._arrays.read(LOCALS, [shot for shots in of for shot in shots])
        return ([next(found) for _ in shots] for shots in of)

    def with_regions(self, regions: Mapping[Path, Sequence[Shot]]) -> CachedPictureArrays:
        """Return it with other regions of the references, which must have been described."""
        return CachedPictureArrays(
            self._repository, self._profile, self._arrays, self._dataset, regions=regions, codebooks=self._codebooks
        )

    def has_patches(self) -> bool:
        """See PictureArrays."""
        return bool(self._profile.sizes.patches)

    def codebook(self, words: int) -> Codebook:
        """See PictureArrays."""
        return self._codebooks.of(words)

    def coattention(self) -> Score:
        """See PictureArrays."""
        return self._graph

    def coattention_of_all(self) -> Score:
        """See PictureArrays."""
        return TorchCoattention(self._profile)

    def reduced(self, features: NDArray[np.float16]) -> NDArray[np.float16]:
        """See PictureArrays."""
        import torch

        with torch.inference_mode():
            vectors = self._reduction(torch.from_numpy(features.astype(np.float32)))
        return np.asarray(vectors.numpy(), np.float16)

    @cached_property
    def _graph(self) -> GraphCoattention:
        return GraphCoattention(self._repository, self._profile)

    @cached_property
    def _reduction(self) -> Any:
        return reduction_of(self._repository, self._profile)
