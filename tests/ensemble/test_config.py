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


def test_a_picture_over_the_limit_still_reaches_us():
    for limit in (1000, 20 * 2**20, 2**30):
        config = ServerConfig(store=Path("s"), limits=Limits(max_bytes=limit))
        assert config.max_message_bytes > limit + 2**20
