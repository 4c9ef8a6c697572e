from __future__ import annotations

import argparse

import pytest

from landseer.client.commands import connection, stats
from landseer.v1.index_pb2 import LocalFeaturesStats, SearchedVectors, StatsResponse, VisualWordsStats

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


def test_pictures_added_since_the_augmentation_are_warned_of(told) -> None:
    said = told(**AUGMENTED, not_augmented=2, removed=1)
    assert "since then 2 added, 1 deleted" in said.out
    assert "2 pictures added since the augmentation, searched by their own descriptors" in said.err


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({}, "not stored"),
        ({"kept": True}, "stored; no picture has them yet"),
        ({"kept": True, "pictures": 1200, "bytes": 2**20}, "stored; 1,200 pictures have them, 1.0 MiB"),
        ({"kept": True, "regions": 5}, "stored, with up to 5 regions; no picture"),
        ({"pictures": 3, "bytes": 2**20}, "not stored; 3 pictures have them, 1.0 MiB"),
    ],
)
def test_it_says_whether_local_features_are_stored(monkeypatch, capsys, features, said) -> None:
    answer = StatsResponse(pictures=7, local_features=LocalFeaturesStats(**features))
    monkeypatch.setattr(connection, "call", lambda args, do: answer)
    assert stats.run(argparse.Namespace(json=False)) == 0
    shown = capsys.readouterr().out
    assert said in " ".join(shown.split()) and ("not stored" in shown) == ("not stored" in said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "visual words none"),
        (
            {"codebook": "abcd", "words": 1024, "kernel": "asmk", "pictures": 7, "bytes": 2**20},
            "1,024 of codebook abcd, asmk; 7 pictures in 1.0 MiB of memory",
        ),
    ],
)
def test_it_says_which_words_are_searched(monkeypatch, capsys, words, said) -> None:
    answer = StatsResponse(pictures=7, visual_words=VisualWordsStats(**words))
    monkeypatch.setattr(connection, "call", lambda args, do: answer)
    assert stats.run(argparse.Namespace(json=False)) == 0
    assert said in " ".join(capsys.readouterr().out.split())
