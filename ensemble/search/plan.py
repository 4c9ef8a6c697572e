"""What a search shall do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.pictures.pictures import Region

COATTENTION, SPATIAL = "coattention", "spatial"
"""Methods of re-ranking."""


@dataclass(frozen=True, kw_only=True)
class PictureQuery:
    """An encoded picture, or a part of it."""

    data: bytes
    region: Region | None


@dataclass(frozen=True, kw_only=True)
class IdQuery:
    """A picture that is indexed."""

    id: str


@dataclass(frozen=True, kw_only=True)
class VectorQuery:
    """A raw descriptor, float32 [D], made unit norm."""

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
    """A second look at the first hits."""

    method: str
    """`COATTENTION` or `SPATIAL`."""
    candidates: int
    weight: float
    """Of co-attention."""
    shared_words: int = 0
    """How many visual words a candidate must share with the query."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search shall do."""

    query: Query
    top_k: int
    expand: ExpansionPlan | None
    rerank: RerankingPlan | None
    explain: bool
    by_words: bool = False
    """Whether the first search is by visual words."""

    @property
    def verifies(self) -> bool:
        """Whether the hits are to be verified spatially."""
        return self.rerank is not None and self.rerank.method == SPATIAL

    @property
    def needs_local_features(self) -> bool:
        """Whether it needs those of the query."""
        return self.by_words or self.verifies or (self.rerank is not None and self.rerank.shared_words > 0)
