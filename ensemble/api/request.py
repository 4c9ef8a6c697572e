"""Parse requests: a SearchRequest into a search plan, a ListRequest into a page query. Validate, fill in defaults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.api.page_tokens import PageToken, digest_of
from landseer.ensemble.config import KEYPOINTS
from landseer.ensemble.errors import CodebookMissing, InvalidInput, LocalFeaturesMissing, Untrained
from landseer.ensemble.filters.parser import parse
from landseer.ensemble.index.codebooks import LocalSources
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.search.expansion.methods import (
    DEFAULTS,
    DQE,
    LATTQE,
    MOST,
    RANK_CURVE,
    VERIFIED,
    VERIFIED_NEIGHBOURS,
    limits,
)
from landseer.ensemble.search.expansion.weights import ALPHA
from landseer.ensemble.search.grouping import compared
from landseer.ensemble.search.plan import (
    BOTH,
    COATTENTION,
    GLOBAL,
    SPATIAL,
    WORDS,
    ExpansionPlan,
    HitsPage,
    IdQuery,
    PictureQuery,
    Query,
    RerankingPlan,
    SearchPlan,
    VectorQuery,
)
from landseer.ensemble.store.listing import PageQuery
from landseer.ensemble.store.record import MAX_ID_BYTES, check_id
from landseer.v1 import common_pb2, index_pb2, search_pb2

TOP_K = 10
CANDIDATES = 100
WEIGHT = 0.5
"""Of co-attention: at 1 it loses first hits on book covers and landmarks, docs/local-features.md."""
MOST_ALPHA = 100.0
PAGE, MOST_PAGE = 1000, 10_000
"""Ids of a page: unless a request says otherwise, and at most."""
EXPANSIONS = {
    search_pb2.EXPANSION_METHOD_LATTQE: LATTQE,
    search_pb2.EXPANSION_METHOD_AQE: "aqe",
    search_pb2.EXPANSION_METHOD_AQEWD: "aqewd",
    search_pb2.EXPANSION_METHOD_AQEWD_DIR: "aqewd-dir",
    search_pb2.EXPANSION_METHOD_ALPHA_QE: "alphaqe",
    search_pb2.EXPANSION_METHOD_DQE: DQE,
    search_pb2.EXPANSION_METHOD_RANK_CURVE: RANK_CURVE,
    search_pb2.EXPANSION_METHOD_VERIFIED: VERIFIED,
}
"""Expansion methods by enum value; any other value means no expansion."""
FIRST_STAGES = {
    search_pb2.FIRST_STAGE_GLOBAL: GLOBAL,
    search_pb2.FIRST_STAGE_WORDS: WORDS,
    search_pb2.FIRST_STAGE_BOTH: BOTH,
}
"""How candidates are found, by enum value."""
RERANKINGS = {
    search_pb2.RERANKING_METHOD_COATTENTION: COATTENTION,
    search_pb2.RERANKING_METHOD_SPATIAL: SPATIAL,
}
"""Re-ranking methods by enum value; any other value means no re-ranking."""


def search_plan(
    request: search_pb2.SearchRequest, profile: Profile, *, max_top_k: int, sources: LocalSources
) -> SearchPlan:
    """Validate a SearchRequest and return its plan. sources: the local features that the server has.

    InvalidInput names the field; Untrained, LocalFeaturesMissing and CodebookMissing say how to fix it.
    """
    kind = request.WhichOneof("query")
    rerank = _rerank(request.reranking, profile, sources, kind)
    first = _first(request, kind, sources)
    if request.HasField("region") and kind != "image":
        said = f"got a region with {f'the query `{kind}`' if kind else 'no query'}; a region needs the query `image`"
        raise InvalidInput("region", said)
    if rerank is not None and kind == "descriptor":
        raise InvalidInput(
            "reranking.method",
            "re-ranking needs a picture: a raw descriptor has no co-attention vector and no local features; send the "
            "picture as `image`, or its `id` if it is indexed, or search without re-ranking",
        )
    top_k = request.top_k if request.HasField("top_k") else TOP_K
    _in_range("top_k", top_k, 1, max_top_k)
    groups, group_field = _groups(request, sources)
    return SearchPlan(
        query=_query(request, kind, profile),
        top_k=top_k,
        expand=_expand(request.expansion, profile, rerank, sources, first=first, kind=kind),
        rerank=rerank,
        explain=request.explain,
        first=first,
        compared=compared(top_k, most=max_top_k) if groups else 0,
        group_field=group_field,
        filter=parse(request.filter),
        page=_page(request, top_k),
        sources=sources,
    )


def region_of(request: Any) -> Region | None:
    """Return the `region` of a request, or None. InvalidInput for values that are not finite."""
    if not request.HasField("region"):
        return None
    box: common_pb2.Box = request.region
    sides = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    for name, value in sides.items():
        if not math.isfinite(value):
            raise InvalidInput("region", f"{name} is {value}; expected a finite number of pixels")
    return Region(**sides)


def page_query(request: index_pb2.ListRequest) -> PageQuery:
    """Validate a ListRequest and return what its page shows. InvalidInput names the field."""
    for field, text in (("prefix", request.prefix), ("page_token", request.page_token)):
        if (size := len(text.encode())) > MAX_ID_BYTES:
            raise InvalidInput(field, f"got {size} bytes; expected at most {MAX_ID_BYTES}, as ids have no more")
    size = request.page_size or PAGE
    _in_range("page_size", size, 1, MOST_PAGE)
    return PageQuery(prefix=request.prefix, after=request.page_token, size=size, metadata=request.include_metadata)


def _query(request: search_pb2.SearchRequest, kind: str | None, profile: Profile) -> Query:
    if kind == "image":
        return PictureQuery(data=request.image, region=region_of(request))
    if kind == "id":
        check_id(request.id)
        return IdQuery(id=request.id)
    if kind == "descriptor":
        return VectorQuery(vector=_unit(request.descriptor.values, profile.sizes.channels))
    raise InvalidInput("query", "missing; set one of image, id and descriptor")


def _unit(values: Any, size: int) -> NDArray[np.float32]:
    """Return float32 [size] with unit norm. Computed in double precision, so that no finite value overflows."""
    field = "descriptor.values"
    if len(values) != size:
        raise InvalidInput(field, f"got {len(values)} values; expected {size}, the size of the index's descriptors")
    vector = np.fromiter(values, np.float64, size)
    if not np.isfinite(vector).all():
        raise InvalidInput(field, f"value {int(np.argmin(np.isfinite(vector)))} is not finite; expected finite numbers")
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        raise InvalidInput(field, "got only zeros; expected a vector with a norm above 0")
    return (vector / norm).astype(np.float32)


def _expand(
    request: search_pb2.Expansion,
    profile: Profile,
    rerank: RerankingPlan | None,
    sources: LocalSources,
    *,
    first: str,
    kind: str | None,
) -> ExpansionPlan | None:
    """Return how the query is expanded, None for not at all.

    By default verified hits, if any, are added to what a trained LAttQE makes of a picture that is sent. Searches by id
    do without it, as they are answered while Triton is down, too.
    """
    _known("expansion.method", request.method, search_pb2.ExpansionMethod)
    verifies = rerank is not None and rerank.method == SPATIAL and sources.verification == KEYPOINTS
    method, nearest = EXPANSIONS.get(request.method), 0
    if request.method == search_pb2.EXPANSION_METHOD_UNSPECIFIED and verifies and first != WORDS:
        method = VERIFIED
        if kind == "image" and LATTQE not in profile.untrained:
            nearest = min(DEFAULTS[LATTQE], profile.sizes.neighbours)
    most = limits(profile.sizes.neighbours).get(method or "", MOST)
    default = VERIFIED_NEIGHBOURS if method == VERIFIED else DEFAULTS.get(method or "", 1)
    neighbours = request.neighbours if request.HasField("neighbours") else default
    alpha = request.alpha if request.HasField("alpha") else ALPHA
    _in_range("expansion.neighbours", neighbours, 1, most)
    if not 0.0 <= alpha <= MOST_ALPHA:
        raise InvalidInput("expansion.alpha", f"got {alpha:g}; expected 0 to {MOST_ALPHA:g}")
    if method is None:
        return None
    if method == LATTQE and "lattqe" in profile.untrained and not request.allow_untrained:
        raise Untrained(
            "expansion.method: the served `lattqe` was never trained, its weights are random; use another method, such "
            "as RANK_CURVE, export a trained network with `--lattqe FILE`, or set expansion.allow_untrained to test it"
        )
    if method == VERIFIED and not verifies:
        raise InvalidInput(
            "expansion.method",
            "VERIFIED expands the query by hits that were verified by keypoints; it needs a picture as the query, "
            "reranking.method SPATIAL, which is the default, and a server that stores keypoints",
        )
    return ExpansionPlan(method=method, neighbours=neighbours, alpha=alpha, nearest=nearest)


def _first(request: search_pb2.SearchRequest, kind: str | None, sources: LocalSources) -> str:
    """Return how candidates are found; by default by both, where query and server have keypoints.

    Co-attention is added to the score before, so it is not given the ranks of two searches unless it was asked for.
    """
    _known("first_stage", request.first_stage, search_pb2.FirstStage)
    if request.first_stage == search_pb2.FIRST_STAGE_UNSPECIFIED:
        coattends = request.reranking.method == search_pb2.RERANKING_METHOD_COATTENTION
        return GLOBAL if kind == "descriptor" or sources.words != KEYPOINTS or coattends else BOTH
    first = FIRST_STAGES[request.first_stage]
    if first != GLOBAL and kind == "descriptor":
        said = "a raw descriptor has no visual words; send the picture as `image`, or its `id` if it is indexed"
        raise InvalidInput("first_stage", said)
    if first != GLOBAL:
        _need_words("first_stage", sources)
    return first


def _page(request: search_pb2.SearchRequest, top_k: int) -> HitsPage | None:
    """Return the part of the hits that is asked for; None for all of them."""
    if not request.page_size:
        if request.page_token:
            raise InvalidInput("page_token", "got a token without page_size; set both, or neither for all hits at once")
        return None
    _in_range("page_size", request.page_size, 1, top_k)
    if not request.page_token:
        return HitsPage(offset=0, size=request.page_size, since=None)
    token = PageToken.read(request.page_token, lambda: digest_of(request))
    offset = min(token.offset, top_k)
    return HitsPage(offset=offset, size=request.page_size, since=token.sequence, digest=token.digest)


def _groups(request: search_pb2.SearchRequest, sources: LocalSources) -> tuple[bool, str | None]:
    """Return whether hits are grouped, and by which field, None for near-identical ones; by default they are not."""
    _known("group_by", request.group_by, search_pb2.Grouping)
    if (request.group_by == search_pb2.GROUPING_FIELD) != bool(request.group_field):
        said = "group_by GROUPING_FIELD and group_field go together: set both, or neither"
        raise InvalidInput("group_field", f"got {request.group_field!r}; {said}")
    if request.group_by == search_pb2.GROUPING_FIELD:
        return True, request.group_field
    if request.group_by != search_pb2.GROUPING_NEAR_IDENTICAL:
        return False, None
    if sources.verification != KEYPOINTS:
        raise LocalFeaturesMissing(
            "group_by: near-identical pictures are recognised by keypoints, and this server stores none; start it with "
            "`landseer serve --local-features keypoints` and index the pictures again, or search without group_by"
        )
    return True, None


def _need_words(field: str, sources: LocalSources) -> None:
    if sources.words is None:
        raise CodebookMissing(
            f"{field}: this server has no visual words; start it with `landseer serve --local-features keypoints`, the "
            "default, or with deep local features and a codebook from `landseer codebook`"
        )


def _rerank(
    request: search_pb2.Reranking, profile: Profile, sources: LocalSources, kind: str | None
) -> RerankingPlan | None:
    candidates = request.candidates if request.HasField("candidates") else CANDIDATES
    weight = request.weight if request.HasField("weight") else WEIGHT
    _in_range("reranking.candidates", candidates, 1, profile.sizes.candidates)
    if not 0.0 <= weight <= 1.0:
        raise InvalidInput("reranking.weight", f"got {weight:g}; expected 0 to 1")
    _known("reranking.method", request.method, search_pb2.RerankingMethod)
    method, shared = _method(request, sources, kind), request.require_shared_words
    _in_range("reranking.require_shared_words", shared, 0, profile.sizes.locals)
    if method is None and shared:
        said = "it filters the candidates of re-ranking; set a reranking.method too"
        raise InvalidInput("reranking.require_shared_words", said)
    if method is None:
        return None
    if shared:
        _need_words("reranking.require_shared_words", sources)
    if method == SPATIAL:
        _check_spatial(request, sources)
    return RerankingPlan(method=method, candidates=candidates, weight=weight, shared_words=shared)


def _method(request: search_pb2.Reranking, sources: LocalSources, kind: str | None) -> str | None:
    """Return the re-ranking method; by default verification by keypoints, where query and server have them."""
    if request.method != search_pb2.RERANKING_METHOD_UNSPECIFIED:
        return RERANKINGS.get(request.method)
    return SPATIAL if kind != "descriptor" and sources.verification == KEYPOINTS else None


def _check_spatial(request: search_pb2.Reranking, sources: LocalSources) -> None:
    if request.HasField("weight"):
        said = "spatial verification takes no weight: it sorts by inliers, then by the previous score; omit the weight"
        raise InvalidInput("reranking.weight", said)
    if sources.verification is None:
        raise LocalFeaturesMissing(
            "reranking.method: spatial verification needs local features, and this server stores none; start it with "
            "`landseer serve --local-features keypoints` and index the pictures again, or re-rank by co-attention"
        )


def _in_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(field, f"got {value}; expected {least} to {most}")


def _known(field: str, value: int, enum: Any) -> None:
    if value not in enum.values():
        names = ", ".join(name for name, _ in enum.items() if not name.endswith("UNSPECIFIED"))
        raise InvalidInput(field, f"got {value}; expected one of {names}")
