from __future__ import annotations

from pathlib import Path

import pytest

from landseer.ensemble.config import Limits, ServerConfig, parse_bytes, split_address


@pytest.mark.parametrize(
    ("text", "expected"), [("16GiB", 2**34), ("500 MB", 500_000_000), ("1.5kib", 1536), ("7", 7), (" 2 TiB ", 2**41)]
)
def test_sizes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 parsec", "1e9"])
def test_a_bad_size_is_rejected(text):
    with pytest.raises(ValueError, match="such as 16GiB"):
        parse_bytes(text)


def test_addresses_are_split():
    assert split_address("127.0.0.1:7070") == ("127.0.0.1", 7070)
    assert split_address("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("address", ["7070", "localhost", "::1:7070", "a:99999", "http://a:1", ""])
def test_a_bad_address_is_rejected(address):
    with pytest.raises(ValueError, match="HOST:PORT"):
        ServerConfig(store=Path("s"), listen=address)


def test_a_count_of_zero_is_refused():
    with pytest.raises(ValueError, match="max-top-k is 0"):
        ServerConfig(store=Path("s"), max_top_k=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("waiting", -1, "queue is -1; expected 0 or more"),
        ("poll_s", 0.0, "poll-s is 0.0; expected seconds above 0"),
        ("poll_timeout_s", -1.4, "poll-timeout-s is -1.4; expected seconds above 0"),
        ("inference_timeout_s", float("nan"), "inference-timeout-s is nan; expected seconds above 0"),
        ("answer_reserve_s", -0.05, "answer-reserve-s is -0.05; expected 0 seconds or more"),
        ("drain_s", float("inf"), "drain-s is inf; expected 0 seconds or more"),
    ],
)
def test_a_time_or_queue_out_of_range_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        ServerConfig(store=Path("s"), **{field: value})


def test_no_queue_no_reserve_and_no_drain_are_allowed():
    config = ServerConfig(store=Path("s"), waiting=0, answer_reserve_s=0.0, drain_s=0.0)
    assert (config.waiting, config.answer_reserve_s, config.drain_s) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    "engine",
    ["milvus:19530", "milvus://a/b", "milvus://a:1", "milvus://a:1/b-c", "milvus://a:99999/b", "milvuss://me:pw@a:1/b"],
)
def test_a_bad_address_of_milvus_is_refused_without_its_password(engine):
    with pytest.raises(ValueError, match="milvus://HOST:PORT/COLLECTION") as refused:
        ServerConfig(store=Path("s"), engine=engine)
    assert "pw" not in str(refused.value)


def test_a_token_for_milvus_goes_to_another_machine_over_tls_alone():
    token = {"store": Path("s"), "milvus_token": Path("t")}
    ServerConfig(engine="milvus://127.0.0.1:19530/a", **token)
    ServerConfig(engine="milvuss://far:19530/a", milvus_ca=Path("c"), **token)
    ServerConfig(engine="milvus://far:19530/a", insecure=True, **token)
    with pytest.raises(ValueError, match="in plain text to another machine"):
        ServerConfig(engine="milvus://far:19530/a", **token)
    with pytest.raises(ValueError, match="milvus-ca is for TLS"):
        ServerConfig(store=Path("s"), engine="milvus://127.0.0.1:19530/a", milvus_ca=Path("c"))


TLS = {"tls_cert": Path("c"), "tls_key": Path("k")}
OUTSIDE = "0.0.0.0:7070"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "listen is 0.0.0.0:7070, which other machines can reach, without TLS and tokens.*--insecure"),
        (TLS, "without tokens: .*`landseer token`"),
        ({"tokens": Path("t")}, "without TLS: .*--tls-cert and --tls-key"),
        ({"listen": "127.0.0.1:1", "metrics": "0.0.0.0:7071"}, "metrics is 0.0.0.0:7071.*without TLS"),
        ({"listen": "[::]:1"}, r"listen is \[::\]:1"),
        ({"listen": "search.example:1"}, "listen is search.example:1"),
        ({"tls_cert": Path("c"), "insecure": True}, "both --tls-cert and --tls-key"),
        ({"tls_client_ca": Path("c"), "insecure": True}, "needs --tls-cert"),
    ],
)
def test_what_other_machines_can_reach_needs_tls_and_tokens(given, told):
    with pytest.raises(ValueError, match=told):
        ServerConfig(store=Path("s"), **{"listen": OUTSIDE, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"listen": OUTSIDE, "insecure": True, "metrics": "0.0.0.0:1"},
        {"listen": OUTSIDE, **TLS, "tokens": Path("t"), "metrics": "0.0.0.0:1"},
        {"listen": OUTSIDE, **TLS, "tls_client_ca": Path("a")},
        {"listen": "localhost:1"},
        {"listen": "127.9.9.9:1"},
        {"listen": "[::1]:1", "metrics": None},
    ],
)
def test_what_is_safe_or_asked_for_is_allowed(given):
    assert ServerConfig(store=Path("s"), **given).listen == given["listen"]


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels"])
def test_a_picture_limit_of_zero_is_refused(field):
    with pytest.raises(ValueError, match=f"{field.replace('max_', 'max-image-')} is 0; expected at least 1"):
        Limits(**{field: 0})


@pytest.mark.parametrize("given", ["all", "", "Keypoints", True])
def test_unknown_local_features_are_refused(given):
    with pytest.raises(ValueError, match="expected one of keypoints, deep, both, none"):
        ServerConfig(store=Path("s"), local_features=given)


def test_a_codebook_needs_local_features():
    with pytest.raises(ValueError, match=r"codebook needs local features, .* choose keypoints or deep"):
        ServerConfig(store=Path("s"), local_features="none", codebook=Path("words"))


@pytest.mark.parametrize(
    ("local_features", "regions"), [("deep", -1), ("keypoints", 2), ("none", 2), ("keypoints", -1)]
)
def test_regions_need_deep_local_features(local_features, regions):
    with pytest.raises(ValueError, match=f"regions is {regions}; expected 0, or more together with .* deep or both"):
        ServerConfig(store=Path("s"), local_features=local_features, regions=regions)


@pytest.mark.parametrize("local_features", ["deep", "both"])
def test_regions_go_with_deep_local_features(local_features):
    assert ServerConfig(store=Path("s"), local_features=local_features, regions=2).regions == 2


def test_a_picture_over_the_limit_still_reaches_us():
    for limit in (1000, 20 * 2**20, 2**30):
        config = ServerConfig(store=Path("s"), limits=Limits(max_bytes=limit))
        assert config.max_message_bytes > limit + 2**20
