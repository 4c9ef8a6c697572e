from __future__ import annotations

import argparse

import pytest

from landseer.client.commands import connection, stats
from landseer.v1.index_pb2 import SearchedVectors, StatsResponse

AUGMENTED = {"augmentation": "alphaqe:10:3", "sequence": 1200}


@pytest.fixture
def told(monkeypatch, capsys):
    """Prints the stats of a server that searches some vectors; returns stdout and stderr."""

    def run(**vectors):
        answer = StatsResponse(pictures=7, searched_vectors=SearchedVectors(**vectors))
        monkeypatch.setattr(connection, "call", lambda args, do: answer)
        assert stats.run(argparse.Namespace(json=False)) == 0
        return capsys.readouterr()

    return run


def test_raw_descriptors_are_the_rule(told) -> None:
    assert "raw descriptors" in told().out


def test_an_augmentation_is_named_with_its_moment(told) -> None:
    said = told(**AUGMENTED)
    assert "augmented by alphaqe:10:3, after change 1,200\n" in said.out.replace(" \n", "\n") and not said.err
    assert "network abcdef012345" in told(**AUGMENTED, network="abcdef0123456789").out


def test_what_came_since_is_warned_of(told) -> None:
    said = told(**AUGMENTED, not_augmented=2, removed=1)
    assert "since then 2 came, 1 went" in said.out
    assert "2 pictures came since and are searched by their own descriptors" in said.err
