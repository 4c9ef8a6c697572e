"""Database-side augmentation: expand every vector of the database by its own nearest neighbours.

Form and weights are those of query expansion. Each vector takes the role of the query and is left out of its own
neighbours (Turcot and Lowe, ICCV workshops 2009; Arandjelovic and Zisserman, CVPR 2012; Gordo et al., IJCV 2017
and ECCV 2020): ADBA, ADBAwD, alphaDBA, DDBA, and LAttDBA with the tempered softmax. All neighbours are raw vectors,
never augmented ones, so the result does not depend on the order. Norms are 1, as in dirtorch; the older code of DIR's
authors (aqewd-dir) is otherwise equal but keeps the norm of the weighted mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.engines import ENGINES, IndexEngine, Keys, Vectors
from landseer.ensemble.index.live_index import Hits, largest_norm, nearest
from landseer.ensemble.search.expansion.dqe import NEGATIVES, discriminative
from landseer.ensemble.search.expansion.methods import DQE, LATTQE
from landseer.ensemble.search.expansion.recipe import PARAMETERS, Recipe
from landseer.ensemble.search.expansion.weights import WEIGHTINGS, combined, tempered

BLOCK = 256
"""Number of vectors augmented at a time."""

Attention = Callable[[Vectors, Vectors], NDArray[np.floating[Any]]]
"""LAttQE's weights [n, k] (cos(q~, d~) in the paper) of vectors [n, D] and neighbours [n, k, D], nearest first."""

_NONE = Hits(keys=np.empty(0, np.int64), scores=np.empty(0, np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmenter:
    """Augments the vectors that an engine holds, in blocks.

    The block sizes do not change the result: the same rows give the same bytes, if `attention` does so too.
    """

    engine: IndexEngine
    """Holds all raw vectors, of unit norm."""
    recipe: Recipe
    attention: Attention | None = None
    """Required by lattqe."""
    longest: float
    """An upper bound of the norms in the engine."""

    @classmethod
    def over(
        cls,
        vectors: NDArray[np.floating[Any]],
        method: str,
        k: int,
        *,
        parameter: float | None = None,
        attention: Attention | None = None,
        threads: int = 0,
    ) -> Augmenter:
        """Return the augmenter of a database [N, D] whose keys are its rows; for the rest see `augmented`."""
        raw = np.ascontiguousarray(vectors, np.float32)
        if raw.ndim != 2 or not np.isfinite(raw).all():
            raise ValueError(f"got vectors of shape {raw.shape}; expected finite ones, [N, D]")
        engine = ENGINES["faiss-exact"](raw.shape[1], threads=threads)
        engine.add(np.arange(len(raw)), raw)
        given = PARAMETERS.get(method, 0.0) if parameter is None else parameter
        how = Recipe(method=method, neighbours=k, parameter=given)
        return cls(engine=engine, recipe=how, attention=attention, longest=largest_norm(raw) if len(raw) else 1.0)

    def rows(self, keys: Keys, *, without: int | None = None) -> Vectors:
        """Return the augmented vectors of keys [n], float32 [n, D], of unit norm.

        A vector without neighbours, or of zeros, is returned unchanged. without: a key whose vector is ignored, as if
        it were not there.
        """
        vectors = self.engine.vectors(keys)
        if not len(keys) or not self.recipe.neighbours or self.engine.size < 2:
            return vectors
        hits, lowest = self._company(keys, vectors, without)
        rows = self._expanded(vectors, hits, lowest)
        return np.where(vectors.any(axis=1)[:, None], rows, vectors)

    def leaning_on(self, keys: Keys) -> list[Keys]:
        """Return for each of keys [n] the keys of the other vectors that shape its augmented one."""
        if not self.recipe.neighbours:
            return [keys[:0]] * len(keys)
        hits, lowest = self._company(keys, self.engine.vectors(keys), None)
        return [np.concatenate([near.keys, far.keys]) for near, far in zip(hits, lowest, strict=True)]

    def _company(self, keys: Keys, vectors: Vectors, without: int | None) -> tuple[list[Hits], list[Hits]]:
        """Return the nearest of each vector and, for dqe only, the lowest ranked."""
        hits = self._others(keys, vectors, self.recipe.neighbours, without)
        return hits, self._others(keys, -vectors, NEGATIVES if self.recipe.method == DQE else 0, without)

    def _expanded(self, vectors: Vectors, hits: list[Hits], lowest: list[Hits]) -> Vectors:
        if self.recipe.method == LATTQE:
            return self._attended(vectors, hits)
        if self.recipe.method == DQE:
            trios = zip(vectors, hits, lowest, strict=True)
            return np.stack([discriminative(v, self._vectors(near), self._vectors(far)) for v, near, far in trios])
        weigh, alpha = WEIGHTINGS[self.recipe.method], self.recipe.parameter
        pairs = zip(vectors, hits, strict=True)
        return np.stack([combined(v, self._vectors(near), weigh(near.scores, alpha)) for v, near in pairs])

    def _attended(self, vectors: Vectors, hits: list[Hits]) -> Vectors:
        if self.attention is None:
            raise ValueError("lattqe augments by the weights of its network, and none was given")
        neighbours = np.stack([self._vectors(near) for near in hits])
        weights = tempered(self.attention(vectors, neighbours), self.recipe.parameter)
        return combined(vectors, neighbours, weights)

    def _vectors(self, hits: Hits) -> Vectors:
        return self.engine.vectors(hits.keys)

    def _others(self, keys: Keys, vectors: Vectors, k: int, without: int | None) -> list[Hits]:
        """Return the k nearest of each vector [n, D] without itself; of equal scores the smaller key comes first."""
        if not k:
            return [_NONE] * len(keys)
        found = nearest(self.engine, vectors, [k + 2] * len(keys), longest=self.longest)
        return [_less(hits, (key, without), k) for key, hits in zip(keys, found, strict=True)]


def augmented(
    vectors: NDArray[np.floating[Any]],
    method: str,
    k: int,
    *,
    parameter: float | None = None,
    attention: Attention | None = None,
    threads: int = 0,
) -> Vectors:
    """Return a whole database augmented, float32 [N, D], of unit norm; `vectors` [N, D], of unit norm, are not changed.

    method: a key of `AUGMENTATION_DEFAULTS`; k: number of neighbours, 0 changes nothing; parameter: alpha of alphaqe or
    temperature of lattqe, None for the default; attention: required by lattqe; threads: of the search, 0 for all cores.
    ValueError for another shape, or lattqe without attention.
    """
    augmenter = Augmenter.over(vectors, method, k, parameter=parameter, attention=attention, threads=threads)
    size = augmenter.engine.size
    blocks = [augmenter.rows(np.arange(i, min(i + BLOCK, size))) for i in range(0, size, BLOCK)]
    return np.concatenate([np.empty((0, augmenter.engine.dimension), np.float32), *blocks])


def _less(hits: Hits, keys: tuple[int | None, ...], k: int) -> Hits:
    """Drop keys from hits and keep k: among many duplicates a vector may not be in its own hits."""
    kept = np.flatnonzero(~np.isin(hits.keys, [key for key in keys if key is not None]))[:k]
    return Hits(keys=hits.keys[kept], scores=hits.scores[kept])
