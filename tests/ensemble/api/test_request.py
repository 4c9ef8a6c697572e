"""The defaults of a search: what an unset stage means for each kind of query and each server."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from fake_triton import PROFILE, SIZES
from plain import PLAIN

from landseer.ensemble.api.request import CANDIDATES, search_plan
from landseer.ensemble.errors import CodebookMissing, InvalidInput, LocalFeaturesMissing
from landseer.ensemble.index.codebooks import LocalSources
from landseer.v1 import search_pb2

QUERIES = {
    "image": {"image": b"picture"},
    "region": {"image": b"picture", "region": {"width": 9, "height": 9}},
    "id": {"id": "a"},
    "descriptor": {"descriptor": {"values": [1.0] * SIZES.channels}},
}
SOURCES = {
    "none": LocalSources(),
    "keypoints": LocalSources(words="keypoints", verification="keypoints"),
    "deep": LocalSources(verification="deep"),
    "deep with words": LocalSources(words="deep", verification="deep"),
    "both with deep words": LocalSources(words="deep", verification="keypoints"),
}
COATTENTION = {"method": search_pb2.RERANKING_METHOD_COATTENTION}
SPATIAL = {"method": search_pb2.RERANKING_METHOD_SPATIAL}
WORDS, BOTH = search_pb2.FIRST_STAGE_WORDS, search_pb2.FIRST_STAGE_BOTH


TRAINED = replace(PROFILE, untrained=())


def plan(query, sources, profile=PROFILE, **fields):
    request = search_pb2.SearchRequest(**QUERIES[query], **fields)
    return search_plan(request, profile, max_top_k=50, sources=SOURCES[sources])


def method(found):
    return None if found.rerank is None else found.rerank.method


@pytest.mark.parametrize(("query", "sources"), list(product(QUERIES, SOURCES)))
def test_by_default_keypoints_find_and_verify_a_picture(query, sources):
    found, pictured = plan(query, sources), query != "descriptor"
    has = SOURCES[sources]
    assert found.first == ("both" if pictured and has.words == "keypoints" else "global")
    assert method(found) == ("spatial" if pictured and has.verification == "keypoints" else None)
    assert found.needs_keypoints == (pictured and has.verification == "keypoints") and not found.needs_deep
    assert found.sources == has
    # Where words are of deep features, candidates come from the global descriptor alone, and are verified, too.
    assert (found.expand is not None) == found.verifies and (found.expand is None or found.expand.verified)
    if found.rerank is not None:
        assert (found.rerank.candidates, found.rerank.shared_words) == (CANDIDATES, 0)


@pytest.mark.parametrize(("query", "sources"), list(product(QUERIES, SOURCES)))
def test_stages_that_are_named_are_taken(query, sources):
    found = plan(query, sources, **PLAIN)
    assert (found.first, found.expand, found.rerank) == ("global", None, None)
    assert not (found.uses_words or found.verifies or found.needs_keypoints or found.needs_deep)


@pytest.mark.parametrize(("query", "sources"), list(product(["image", "id"], SOURCES)))
def test_coattention_goes_on_from_the_global_search_unless_told_otherwise(query, sources):
    found = plan(query, sources, reranking=COATTENTION)
    assert (found.first, method(found)) == ("global", "coattention")
    if SOURCES[sources].words:
        assert plan(query, sources, reranking=COATTENTION, first_stage=BOTH).first == "both"


@pytest.mark.parametrize("sources", [name for name, has in SOURCES.items() if has.verification])
def test_verification_uses_what_the_server_has(sources):
    found = plan("image", sources, reranking=SPATIAL, first_stage=search_pb2.FIRST_STAGE_GLOBAL)
    by_keypoints = SOURCES[sources].verification == "keypoints"
    assert (found.needs_keypoints, found.needs_deep) == (by_keypoints, not by_keypoints)


def test_words_and_verification_may_need_different_features():
    found = plan("image", "both with deep words", first_stage=WORDS)
    assert (found.first, method(found)) == ("words", "spatial") and found.needs_deep and found.needs_keypoints


@pytest.mark.parametrize("first_stage", [WORDS, BOTH])
def test_words_that_cannot_be_searched_by_are_refused(first_stage):
    for sources in ("none", "deep"):
        with pytest.raises(CodebookMissing, match=r"first_stage: this server has no visual words; .*keypoints"):
            plan("id", sources, first_stage=first_stage)
    with pytest.raises(InvalidInput, match="first_stage: a raw descriptor has no visual words; send the picture"):
        plan("descriptor", "keypoints", first_stage=first_stage)


def test_verification_that_cannot_be_done_is_refused():
    with pytest.raises(LocalFeaturesMissing, match="--local-features keypoints` and index the pictures again"):
        plan("image", "none", reranking=SPATIAL)
    with pytest.raises(InvalidInput, match=r"reranking\.method: re-ranking needs a picture"):
        plan("descriptor", "keypoints", reranking=SPATIAL)


@pytest.mark.parametrize("reranking", [SPATIAL | {"weight": 0.5}, {"weight": 0.5}])
def test_verification_takes_no_weight(reranking):
    with pytest.raises(InvalidInput, match=r"reranking\.weight: spatial verification takes no weight"):
        plan("image", "keypoints", reranking=reranking)


def test_candidates_and_shared_words_apply_to_the_verification_by_default():
    found = plan("image", "keypoints", reranking={"candidates": 7, "require_shared_words": 3})
    assert (found.rerank.candidates, found.rerank.shared_words) == (7, 3)
    with pytest.raises(InvalidInput, match=r"it filters the candidates of re-ranking; set a reranking\.method too"):
        plan("image", "none", reranking={"require_shared_words": 3})
    with pytest.raises(CodebookMissing, match=r"reranking\.require_shared_words: this server has no visual words"):
        plan("image", "deep", reranking=SPATIAL | {"require_shared_words": 3})


def test_near_identical_hits_are_grouped_only_if_asked_for():
    assert plan("image", "keypoints").compared == 0
    assert plan("image", "keypoints", group_by=search_pb2.GROUPING_NONE).compared == 0
    grouped = {"group_by": search_pb2.GROUPING_NEAR_IDENTICAL}
    assert all(plan(query, "keypoints", **grouped).compared == 50 for query in QUERIES)
    with pytest.raises(LocalFeaturesMissing, match="group_by: near-identical pictures are recognised by keypoints"):
        plan("image", "deep with words", **grouped)
    with pytest.raises(InvalidInput, match="group_by: got 9; expected one of GROUPING_NONE, GROUPING_NEAR_IDENTICAL"):
        plan("image", "keypoints", group_by=9)


VERIFIED = {"method": search_pb2.EXPANSION_METHOD_VERIFIED}


@pytest.mark.parametrize("query", ["image", "region", "id"])
def test_verified_hits_expand_what_keypoints_verify(query):
    found = plan(query, "keypoints", expansion=VERIFIED)
    assert found.expand is not None and found.expand.verified and found.expand.neighbours == 10
    assert plan(query, "keypoints", expansion={**VERIFIED, "neighbours": 3}).expand.neighbours == 3


@pytest.mark.parametrize("query", ["image", "region", "id"])
def test_by_default_a_trained_lattqe_expands_a_picture_that_is_sent_before_verified_hits_do(query):
    found, sent = plan(query, "keypoints", TRAINED), query != "id"
    assert (found.expand.method, found.expand.neighbours, found.expand.nearest) == ("verified", 10, 64 if sent else 0)
    assert plan(query, "keypoints").expand.nearest == 0, "it is untrained"
    assert plan(query, "keypoints", TRAINED, expansion={"neighbours": 3}).expand.nearest == found.expand.nearest
    # Methods that are named mean what they say.
    for named in (VERIFIED, {"method": search_pb2.EXPANSION_METHOD_LATTQE}):
        assert plan(query, "keypoints", TRAINED, expansion=named).expand.nearest == 0
    few = replace(TRAINED, sizes=replace(SIZES, neighbours=16))
    assert plan(query, "keypoints", few).expand.nearest == 16 * sent


def test_as_many_hits_are_read_as_the_network_takes():
    fields = {"top_k": 5, "reranking": {"candidates": 7}}
    assert (plan("image", "keypoints", TRAINED, **fields).depth, plan("id", "keypoints", **fields).depth) == (64, 10)


def test_an_expansion_that_is_named_is_taken_and_words_alone_stay_alone():
    none, aqe = search_pb2.EXPANSION_METHOD_NONE, search_pb2.EXPANSION_METHOD_AQE
    assert plan("image", "keypoints", expansion={"method": none}).expand is None
    assert plan("id", "keypoints", expansion={"method": aqe}).expand.method == "aqe"
    assert plan("image", "keypoints", first_stage=WORDS).expand is None
    assert plan("image", "keypoints", first_stage=WORDS, expansion=VERIFIED).expand.verified
    assert plan("image", "keypoints", expansion={"neighbours": 3}).expand.neighbours == 3


@pytest.mark.parametrize(
    ("query", "sources", "more"),
    [
        ("descriptor", "keypoints", {}),
        ("image", "none", {}),
        ("image", "deep", {"reranking": SPATIAL}),
        ("image", "keypoints", {"reranking": COATTENTION}),
        ("image", "keypoints", PLAIN),
    ],
)
def test_verified_hits_need_verification_by_keypoints(query, sources, more):
    with pytest.raises(InvalidInput, match="VERIFIED expands the query by hits that were verified by keypoints"):
        plan(query, sources, expansion=VERIFIED, **{name: one for name, one in more.items() if name != "expansion"})
