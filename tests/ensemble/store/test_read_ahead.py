import os

import pytest

from landseer.ensemble.store import read_ahead
from landseer.ensemble.store.read_ahead import ReadAhead


@pytest.fixture
def asked(monkeypatch):
    calls = []
    monkeypatch.setattr(read_ahead, "AHEAD", 1000)
    monkeypatch.setattr(read_ahead, "STEP", 400)
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, count, how: calls.append((start, count)))
    return calls


def test_each_byte_is_requested_once_and_none_beyond_the_end(tmp_path, asked):
    (tmp_path / "file").write_bytes(bytes(2500))
    with ReadAhead(tmp_path / "file") as ahead:
        assert asked == [(0, 400), (400, 400), (800, 200)]
        ahead.reached(0.1)
        assert asked[3:] == [(1000, 250)]
        ahead.reached(0.05)
        assert len(asked) == 4
        ahead.reached(1.2)
    assert sum(count for _, count in asked) == 2500
    starts = [start for start, _ in asked]
    assert starts == sorted(starts) and asked[-1][0] + asked[-1][1] == 2500


def test_an_empty_file_is_asked_for_nothing_and_none_is_an_error(tmp_path, asked):
    (tmp_path / "empty").touch()
    with ReadAhead(tmp_path / "empty") as ahead:
        ahead.reached(1.0)
    assert asked == []
    with pytest.raises(FileNotFoundError):
        ReadAhead(tmp_path / "none")
