from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from landseer.ops import progress


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.02)


def waited_for(text: str, stream: io.StringIO) -> bool:
    deadline = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    return text in stream.getvalue()


def test_a_log_file_gets_a_line_from_time_to_time(often):
    stream = io.StringIO()
    with progress.bars(Console(file=stream, width=60)) as shown:
        shown.get_time = lambda: 0.0  # however long a busy machine takes
        task = shown.add_task("searches: pairs:[a],b", total=2000)
        shown.advance(task, 1234)
        assert waited_for("searches: pairs:[a],b: 1,234 of 2,000 after 0 s\n", stream)
        shown.add_task("how many", total=None)
        assert waited_for("how many: 0 of ? after 0 s\n", stream)
    length = len(stream.getvalue())
    time.sleep(0.1)
    assert len(stream.getvalue()) == length


def test_what_is_finished_is_not_told_again(often):
    stream = io.StringIO()
    with progress.bars(Console(file=stream, width=60)) as shown:
        shown.add_task("first", total=1, completed=1)
        shown.add_task("second", total=1)
        assert waited_for("second: 0 of 1", stream)
    assert "first: 1 of 1" not in stream.getvalue() and "1/1" in stream.getvalue()


def test_a_terminal_gets_bars_alone(often):
    stream = io.StringIO()
    with progress.bars(Console(file=stream, width=60, force_terminal=True)) as shown:
        shown.add_task("first", total=3)
        time.sleep(0.1)
    assert "0/3" in stream.getvalue() and "0 of 3" not in stream.getvalue()
