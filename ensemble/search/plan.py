"""The plan of a search: query, expansion, re-ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.pictures.pictures import Region

COATTENTION, SPATIAL = "coattention", "spatial"
"""Re-ranking methods."""


@dataclass(frozen=True, kw_only=True)
class PictureQuery:
    """An encoded picture, or a part of it."""

    data: bytes
    region: Region | None


@dataclass(frozen=True, kw_only=True)
class IdQuery:
    """An indexed picture."""

    id: str


@dataclass(frozen=True, kw_only=True)
class VectorQuery:
    """A raw descriptor, float32 [D], unit norm."""

    vector: NDArray[np.float32]


Query = PictureQuery | IdQuery | VectorQuery


@dataclass(frozen=True, kw_only=True)
class ExpansionPlan:
    """Query expansion over the first hits."""

    method: str
    """A key of `expansion.methods.DEFAULTS`."""
    neighbours: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class RerankingPlan:
    """Re-ranking of the first hits."""

    method: str
    """`COATTENTION` or `SPATIAL`."""
    candidates: int
    weight: float
    """Weight of the co-attention score, 0 to 1."""
    shared_words: int = 0
    """Re-rank only candidates that share at least this many visual words with the query; 0 for all."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A validated search request."""

    query: Query
    top_k: int
    expand: ExpansionPlan | None
    rerank: RerankingPlan | None
    explain: bool
    by_words: bool = False
    """Whether the first search is by visual words."""

    @property
    def verifies(self) -> bool:
        """Whether hits are re-ranked by spatial verification."""
        return self.rerank is not None and self.rerank.method == SPATIAL

    @property
    def needs_local_features(self) -> bool:
        """Whether the local features of the query are needed."""
        return self.by_words or self.verifies or (self.rerank is not None and self.rerank.shared_words > 0)
