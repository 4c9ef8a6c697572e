"""The plan of a search: query, expansion, re-ranking."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import DEEP, KEYPOINTS
from landseer.ensemble.filters.expression import Filter
from landseer.ensemble.index.codebooks import LocalSources
from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.search.expansion.methods import VERIFIED

COATTENTION, SPATIAL = "coattention", "spatial"
"""Re-ranking methods."""
GLOBAL, WORDS, BOTH = "global", "words", "both"
"""How candidates are found: by the global descriptor, by visual words, or by both."""


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
    """A key of `expansion.methods.DEFAULTS`, or `VERIFIED`."""
    neighbours: int
    alpha: float
    nearest: int = 0
    """Nearest neighbours by which LAttQE expands the query that verified hits, if there are any, are added to; 0 to add
    them to the query itself."""

    @property
    def verified(self) -> bool:
        """Whether only verified hits expand the query, after verification."""
        return self.method == VERIFIED


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
class HitsPage:
    """The part of the hits that is returned."""

    offset: int
    size: int
    since: int | None
    """Number of changes of the store at the first page; None if this is the first."""
    digest: bytes | None = None
    """Of the request, as its token had it; None if this is the first."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A validated search request."""

    query: Query
    top_k: int
    expand: ExpansionPlan | None
    rerank: RerankingPlan | None
    explain: bool
    first: str = GLOBAL
    """`GLOBAL`, `WORDS` or `BOTH`."""
    compared: int = 0
    """Hits that are grouped; `top_k` then counts groups. 0 for no grouping."""
    group_field: str | None = None
    """The field of the metadata whose values make groups; None to group those that are near-identical."""
    filter: Filter | None = None
    """Which pictures are searched; None for all."""
    page: HitsPage | None = None
    """None to return all hits."""
    sources: LocalSources = field(default_factory=LocalSources)
    """What the server has."""

    @property
    def depth(self) -> int:
        """The number of hits that later stages need of a search."""
        neighbours = max(self.expand.neighbours, self.expand.nearest) if self.expand else 0
        candidates = self.rerank.candidates if self.rerank else 0
        return max(self.top_k, neighbours, candidates, self.compared)

    @property
    def verifies(self) -> bool:
        """Whether hits are re-ranked by spatial verification."""
        return self.rerank is not None and self.rerank.method == SPATIAL

    @property
    def uses_words(self) -> bool:
        """Whether visual words of the query are needed."""
        return self.first != GLOBAL or (self.rerank is not None and self.rerank.shared_words > 0)

    @property
    def needs_deep(self) -> bool:
        """Whether the deep local features of the query are needed."""
        return self._needs(DEEP)

    @property
    def needs_keypoints(self) -> bool:
        """Whether the keypoints of the query are needed."""
        return self._needs(KEYPOINTS)

    @property
    def needs_patches(self) -> bool:
        """Whether the patches of the query are needed."""
        return self.verifies and self.sources.patches

    def _needs(self, source: str) -> bool:
        words, verified = self.uses_words, self.verifies
        return (words and self.sources.words == source) or (verified and self.sources.verification == source)
