"""A search request, checked and with its defaults filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import InvalidInput, Untrained
from landseer.ensemble.expansion.methods import DEFAULTS, DQE, LATTQE, MOST, limits
from landseer.ensemble.expansion.weights import ALPHA
from landseer.ensemble.pictures import Region
from landseer.ensemble.profile import Profile
from landseer.ensemble.record import check_id
from landseer.v1 import common_pb2, search_pb2

TOP_K = 10
CANDIDATES = 100
MOST_ALPHA = 100.0
EXPANSIONS = {
    search_pb2.EXPANSION_METHOD_LATTQE: LATTQE,
    search_pb2.EXPANSION_METHOD_AQE: "aqe",
    search_pb2.EXPANSION_METHOD_AQEWD: "aqewd",
    search_pb2.EXPANSION_METHOD_AQEWD_DIR: "aqewd-dir",
    search_pb2.EXPANSION_METHOD_ALPHA_QE: "alphaqe",
    search_pb2.EXPANSION_METHOD_DQE: DQE,
}
"""Names of the methods; what is not here is no expansion."""


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
class Expand:
    """Query expansion over the first hits."""

    method: str
    """A key of `expansion.methods.DEFAULTS`."""
    neighbours: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class Rerank:
    """Co-attention over the first hits."""

    candidates: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search shall do."""

    query: Query
    top_k: int
    expand: Expand | None
    rerank: Rerank | None
    explain: bool


def search_plan(request: search_pb2.SearchRequest, profile: Profile, *, max_top_k: int) -> SearchPlan:
    """Check a SearchRequest against what is served. InvalidInput names the field; Untrained, NotFound as they say."""
    kind = request.WhichOneof("query")
    rerank = _rerank(request.reranking, profile)
    if request.HasField("region") and kind != "image":
        said = f"a region needs a picture to lie on, but the query is {kind or 'absent'}; leave it out"
        raise InvalidInput("region", said)
    if rerank is not None and kind == "descriptor":
        raise InvalidInput(
            "reranking.method",
            "co-attention needs a picture: a raw descriptor has no co-attention vector; send the picture as `image`, "
            "or its `id` if it is indexed, or leave re-ranking out",
        )
    top_k = request.top_k if request.HasField("top_k") else TOP_K
    _in_range("top_k", top_k, 1, max_top_k)
    return SearchPlan(
        query=_query(request, kind, profile),
        top_k=top_k,
        expand=_expand(request.expansion, profile),
        rerank=rerank,
        explain=request.explain,
    )


def region_of(request: Any) -> Region | None:
    """Return the `region` of a request, or None if it has none. InvalidInput if a side is not a finite number."""
    if not request.HasField("region"):
        return None
    box: common_pb2.Box = request.region
    sides = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    for name, value in sides.items():
        if not math.isfinite(value):
            raise InvalidInput("region", f"{name} is {value}; expected a finite number of pixels")
    return Region(**sides)


def _query(request: search_pb2.SearchRequest, kind: str | None, profile: Profile) -> Query:
    if kind == "image":
        return PictureQuery(data=request.image, region=region_of(request))
    if kind == "id":
        check_id(request.id)
        return IdQuery(id=request.id)
    if kind == "descriptor":
        return VectorQuery(vector=_unit(request.descriptor.values, profile.sizes.channels))
    raise InvalidInput("query", "absent; set one of image, id and descriptor")


def _unit(values: Any, size: int) -> NDArray[np.float32]:
    """Return float32 [size] of unit norm. In double precision, so that no finite value overflows."""
    field = "descriptor.values"
    if len(values) != size:
        raise InvalidInput(field, f"got {len(values)} values, expected {size}, the index's descriptor size")
    vector = np.fromiter(values, np.float64, size)
    if not np.isfinite(vector).all():
        raise InvalidInput(field, f"value {int(np.argmin(np.isfinite(vector)))} is not finite; expected numbers")
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        raise InvalidInput(field, "all values are zero; a direction is expected, of any other norm")
    return (vector / norm).astype(np.float32)


def _expand(request: search_pb2.Expansion, profile: Profile) -> Expand | None:
    _known("expansion.method", request.method, search_pb2.ExpansionMethod)
    method = EXPANSIONS.get(request.method)
    most = limits(profile.sizes.neighbours).get(method or "", MOST)
    neighbours = request.neighbours if request.HasField("neighbours") else DEFAULTS.get(method or "", 1)
    alpha = request.alpha if request.HasField("alpha") else ALPHA
    _in_range("expansion.neighbours", neighbours, 1, most)
    if not 0.0 <= alpha <= MOST_ALPHA:
        raise InvalidInput("expansion.alpha", f"got {alpha:g}, expected 0 to {MOST_ALPHA:g}")
    if method is None:
        return None
    if method == LATTQE and "lattqe" in profile.untrained and not request.allow_untrained:
        raise Untrained(
            "expansion.method: the served `lattqe` has seeded weights, it was never trained; search without expansion, "
            "or set expansion.allow_untrained to try the machinery"
        )
    return Expand(method=method, neighbours=neighbours, alpha=alpha)


def _rerank(request: search_pb2.Reranking, profile: Profile) -> Rerank | None:
    candidates = request.candidates if request.HasField("candidates") else CANDIDATES
    weight = request.weight if request.HasField("weight") else 1.0
    _in_range("reranking.candidates", candidates, 1, profile.sizes.candidates)
    if not 0.0 <= weight <= 1.0:
        raise InvalidInput("reranking.weight", f"got {weight:g}, expected 0 to 1")
    _known("reranking.method", request.method, search_pb2.RerankingMethod)
    if request.method != search_pb2.RERANKING_METHOD_COATTENTION:
        return None
    return Rerank(candidates=candidates, weight=weight)


def _in_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(field, f"got {value}, expected {least} to {most}")


def _known(field: str, value: int, enum: Any) -> None:
    if value not in enum.values():
        names = ", ".join(name for name, _ in enum.items() if not name.endswith("UNSPECIFIED"))
        raise InvalidInput(field, f"got {value}, expected one of {names}")
