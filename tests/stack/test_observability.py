"""What operators see of running servers: metrics, health, reflection, models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from stack.photos import wheel
from stack.servers import scrape, within

from landseer.ensemble.inference.triton import MODELS
from landseer.v1 import search_pb2

pytestmark = pytest.mark.stack

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
COFFEE = wheel("coffee.png")


def test_every_documented_metric_is_there_after_traffic(landseer, album):
    landseer.client.search(COFFEE, reranking="coattention", explain=True)
    landseer.client.search(COFFEE, expansion="rank-curve")
    lattqe = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_LATTQE, allow_untrained=True)
    landseer.client.search(COFFEE, expansion=lattqe)
    landseer.refused(landseer.search.Search, search_pb2.SearchRequest(image=b"no picture"))
    names = {sample.name for family in scrape(landseer.metrics_address) for sample in family.samples}
    families = {family.name for family in scrape(landseer.metrics_address)}
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert len(documented) > 10
    for name in documented:
        # One that has not been counted yet has no sample, but its family is told.
        assert {name, f"{name}_bucket"} & names or name.removesuffix("_total") in families, name
    ours = {name for name in families if name.startswith(("landseer_", "grpc_")) and not name.endswith("_created")}
    assert ours <= {name.removesuffix("_total") for name in documented}, "metrics without a line in the document"

    first, later = (
        ("decode", "describe", "keypoints", "search", "words"),
        ("expand", "research", "rerank", "store", "total"),
    )
    for stage in (*first, *later):
        assert landseer.metric("landseer_stage_duration_seconds_count", stage=stage) >= 1, stage
    search = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}
    within(5, lambda: landseer.metric("grpc_server_handled_total", **search, grpc_code="INVALID_ARGUMENT") >= 1)
    assert landseer.metric("grpc_server_handling_seconds_count", **search) >= 3
    assert landseer.metric("landseer_decode_failures_total", reason="format") >= 1
    assert landseer.metric("landseer_index_pictures") == landseer.client.stats().pictures
    assert landseer.metric("landseer_serving") == 1
    for model in MODELS:
        assert landseer.metric("landseer_model_info", model=model, version="1") == 1, model


def test_tritons_metrics_are_on_its_port(stack, album):
    counted = {
        sample.labels.get("model"): sample.value
        for family in scrape(stack.triton.metrics_url)
        for sample in family.samples
        if sample.name == "nv_inference_request_success_total" or sample.name == "nv_inference_request_success"
    }
    assert set(counted) >= set(MODELS)
    assert counted["backbone"] > 0 and counted["describe_full"] > 0


def test_reflection_lists_the_services(landseer):
    database = ProtoReflectionDescriptorDatabase(landseer.channel)
    assert set(database.get_services()) >= {
        "landseer.v1.SearchService",
        "landseer.v1.IndexService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    told = database.FindFileContainingSymbol("landseer.v1.SearchService")
    assert [method.name for method in told.service[0].method] == ["Search", "Describe"]


def test_health_is_known_by_name(landseer):
    assert all(landseer.serving(name) for name in ("", "landseer.v1.SearchService", "landseer.v1.IndexService"))
    assert not landseer.serving("landseer.v1.NoService")


def test_stats_and_answers_name_the_models(landseer, album, eager):
    stats = landseer.client.stats()
    assert {model.name: model.version for model in stats.model_versions} == dict.fromkeys(MODELS[:5], "1")
    assert (stats.backbone, stats.descriptor_size) == (eager.profile.backbone, eager.profile.sizes.channels)
    assert tuple(stats.untrained) == eager.profile.untrained
    assert stats.pictures >= len(album) and stats.store_bytes > 0 and stats.index_engine == "faiss-exact"
    answer = landseer.client.search(COFFEE, reranking="coattention")
    assert {model.name for model in answer.model_versions} == {"backbone", "cluster", "coattention"}
