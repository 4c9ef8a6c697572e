from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.readable import duration, one_line, plural, size


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00031, "0.3 ms"), (0.062, "62 ms"), (1.24, "1.2 s"), (200.4, "3 min 20 s"), (18_479.0, "5 h 7 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")])
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_plural() -> None:
    assert [plural(1, "hit"), plural(1200, "hit"), plural(2, "box", "boxes")] == ["1 hit", "1,200 hits", "2 boxes"]
